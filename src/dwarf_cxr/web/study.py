"""The pages of a blind study.

Nothing here knows whose map is whose: key.json is not read. Addresses hold a position of the
reader's own list, so that two readers' addresses, or a repeat's, have nothing in common.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi import Path as InPath
from sqlalchemy import Engine
from starlette.responses import HTMLResponse, Response

from dwarf_cxr.errors import DataError
from dwarf_cxr.study.answers import (
    COMMENT,
    CONFIDENCES,
    LONGEST_COMMENT,
    NEEDED,
    QUESTIONS,
    Item,
    OtherAnswerError,
    answers_of,
    done_positions,
    item_at,
    open_answers,
    progress_of,
    save_answer,
)
from dwarf_cxr.study.folder import Study
from dwarf_cxr.web.application import Pages, build_application, visitor_of
from dwarf_cxr.web.links import Links, Visitor
from dwarf_cxr.web.security import LOCAL_HOSTS, Guard
from dwarf_cxr.web.store import reading

ASKED = {
    "accuracy": "Which marks the finding better?",
    "specificity": "Which marks less outside it?",
    "overall": "Which would you rather have?",
}
LONGEST_KEY = 64
Position = Annotated[int, InPath(ge=1, le=1_000_000)]


def build_study(study: Study, hosts: Sequence[str] = LOCAL_HOSTS) -> Guard:
    """The application of a study."""
    links = Links.of(study.folder)
    return build_application([study_routes(study, open_answers(study), links)], links, hosts=hosts)


def study_routes(study: Study, engine: Engine, links: Links) -> APIRouter:
    """What readers and the owner can ask for."""
    router = APIRouter()
    pages = Pages(links)

    @router.get("/")
    def home(request: Request) -> Response:
        if request.state.visitor is not None and request.state.visitor.role == "owner":
            return owner_page(request, "study/owner.html.j2")
        positions = _positions(request)
        return pages.render(
            request,
            "study/start.html.j2",
            {
                "findings": study.findings,
                "shows_regions": study.shows_regions,
                "done": sum(positions.values()),
                "total": len(positions),
                "next": _first_open(positions),
            },
        )

    @router.get("/progress")
    def progress(request: Request) -> Response:
        return owner_page(request, "study/progress.html.j2")

    @router.get("/end")
    def end(request: Request) -> Response:
        positions = _positions(request)
        undone = [position for position, done in positions.items() if not done]
        return pages.render(
            request, "study/end.html.j2", {"undone": undone, "total": len(positions)}
        )

    @router.get("/comparison/{position}")
    def comparison(request: Request, position: Position) -> Response:
        item = _item(request, position)
        with reading(engine) as session:
            answers = answers_of(session, item)
        return pages.render(
            request,
            "study/comparison.html.j2",
            {
                "position": position,
                "finding": study.by_id[item.comparison_id].finding,
                "shows_regions": study.shows_regions,
                "asked": ASKED,
                "confidences": CONFIDENCES,
                "longest_comment": LONGEST_COMMENT,
                "answers": {name: answers.get(name, "") for name in (*NEEDED, COMMENT)},
                **_state(request, answers),
            },
        )

    @router.post("/comparison/{position}/answers")
    def answer(
        request: Request,
        position: Position,
        question: Annotated[str, Form()],
        key: Annotated[str, Form(min_length=8, max_length=LONGEST_KEY)],
        value: Annotated[str, Form()] = "",
    ) -> Response:
        item = _item(request, position)
        try:
            save_answer(engine, item, question, value, key)
        except DataError as fault:
            words = str(fault)
            raise HTTPException(422, f"{words[0].upper()}{words[1:]}.") from None
        except OtherAnswerError:
            raise HTTPException(409) from None
        with reading(engine) as session:
            answers = answers_of(session, item)
        return pages.render(request, "study/state.html.j2", _state(request, answers))

    @router.get("/comparison/{position}/film.png")
    def film(request: Request, position: Position) -> Response:
        return _picture(study.film_path(study.by_id[_item(request, position).comparison_id]))

    @router.get("/comparison/{position}/a.png")
    def left(request: Request, position: Position) -> Response:
        item = _item(request, position)
        return _picture(study.map_path(study.by_id[item.comparison_id].maps[int(item.swapped)]))

    @router.get("/comparison/{position}/b.png")
    def right(request: Request, position: Position) -> Response:
        item = _item(request, position)
        maps = study.by_id[item.comparison_id].maps
        return _picture(study.map_path(maps[1 - int(item.swapped)]))

    @router.get("/comparison/{position}/region.png")
    def region(request: Request, position: Position) -> Response:
        item = _item(request, position)
        if not study.shows_regions:
            raise HTTPException(404)
        return _picture(study.region_path(study.by_id[item.comparison_id]))

    def owner_page(request: Request, template: str) -> HTMLResponse:
        visitor_of(request, "owner")
        with reading(engine) as session:
            readers = progress_of(session)
        withdrawn = {one.name for one in readers if links.path(Visitor("reader", one.name)) is None}
        content = {
            "readers": readers,
            "withdrawn": withdrawn,
            "comparisons": len(study.comparisons),
        }
        return pages.render(request, template, content)

    def _item(request: Request, position: Position) -> Item:
        reader = visitor_of(request, "reader")
        with reading(engine) as session:
            item = item_at(session, reader.name, position)
        if item is None:
            raise HTTPException(404)
        return item

    def _positions(request: Request) -> dict[int, bool]:
        reader = visitor_of(request, "reader")
        with reading(engine) as session:
            positions = dict(done_positions(session, reader.name))
        if not positions:
            raise HTTPException(403, "You are not among the readers of this study.")
        return positions

    def _state(request: Request, answers: dict[str, str]) -> dict[str, object]:
        positions = _positions(request)
        return {
            "done": sum(positions.values()),
            "total": len(positions),
            "missing": [name for name in NEEDED if not answers.get(name)],
            "questions": QUESTIONS,
        }

    return router


def _first_open(positions: dict[int, bool]) -> int | None:
    """The first comparison that is not done."""
    return next((position for position, done in positions.items() if not done), None)


def _picture(path: Path) -> Response:
    return Response(path.read_bytes(), media_type="image/png")
