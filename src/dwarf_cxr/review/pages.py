"""The routes of the review: the queue, a film, its pictures, and every change of it.

Films are known by a number, one more than their place in DATA: no id of an image or patient, no
name of a file, and no report stands on any page or address.
"""

import dataclasses
import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from dwarf_cxr.data.records import Finding
from dwarf_cxr.errors import DataError
from dwarf_cxr.review.annotation import (
    DATA,
    MOST_REGIONS,
    NOTHING,
    READER,
    RUN,
    Assessment,
    assessment_from_json,
    assessment_to_json,
    checked_assessment,
    is_text,
    shape_to_json,
)
from dwarf_cxr.review.folder import SETTINGS_FILE, Review, read_settings
from dwarf_cxr.review.ledger import FilmState, Ledger, StaleError
from dwarf_cxr.review.pictures import film_png, map_png
from dwarf_cxr.review.progress import agreement, disputes, progress, readers_of
from dwarf_cxr.review.standing import Standing
from dwarf_cxr.web.application import Pages, build_application, visitor_of
from dwarf_cxr.web.links import Links, Visitor
from dwarf_cxr.web.security import LOCAL_HOSTS, Guard, Limits

BODY = 4 * 1024 * 1024
"""Bytes of a change: painted masks of a large film take some."""
PAGE = 50
"""Films of a page of the queue."""
LONGEST_KEY = 64


def application(
    review: Review, ledger: Ledger, links: Links, *, hosts: Sequence[str] = LOCAL_HOSTS
) -> Guard:
    """The pages of a review."""
    return build_application(
        [_router(review, ledger, links)], links, hosts=hosts, limits=Limits(body=BODY)
    )


def _router(review: Review, ledger: Ledger, links: Links) -> APIRouter:
    router = APIRouter()
    pages = Pages(links)
    desk = _Desk(review, ledger)

    def reader_of(request: Request) -> str:
        """Whoever asks, if the review still has them: a list of readers can become shorter."""
        name = visitor_of(request, "reader").name
        if name not in desk.names():
            raise HTTPException(403, "You are not among the readers of this review.")
        return name

    def store_of(reader: str) -> str:
        """What the browser keeps unsaved changes under: other reviews may share the address."""
        return f"{links.cookie}/{reader}"

    @router.get("/")
    def home(request: Request, page: int = 1) -> Response:
        visitor = request.state.visitor
        if visitor is not None and visitor.role == "owner":
            content = desk.overview(links)
            return pages.render(request, "review/overview.html.j2", content)
        reader = reader_of(request)
        content = {**desk.queue(reader, page), "store": store_of(reader)}
        return pages.render(request, "review/queue.html.j2", content)

    @router.get("/next")
    def following(request: Request) -> Response:
        number = desk.next_open(reader_of(request))
        return RedirectResponse("/" if number is None else f"/films/{number}", status_code=303)

    @router.get("/films/{number}")
    def film(request: Request, number: int) -> Response:
        reader = reader_of(request)
        index = desk.index(number)
        content = {**desk.film(reader, index), "store": store_of(reader)}
        return pages.render(request, "review/film.html.j2", content)

    @router.get("/films/{number}/film.png")
    def picture(request: Request, number: int) -> Response:
        reader_of(request)
        return Response(film_png(review, desk.index(number)), media_type="image/png")

    @router.get("/films/{number}/maps/{finding}.png")
    def map_picture(request: Request, number: int, finding: int) -> Response:
        reader_of(request)
        return Response(desk.map(desk.index(number), finding), media_type="image/png")

    @router.get("/films/{number}/state")
    def state(request: Request, number: int) -> Response:
        reader = reader_of(request)
        index = desk.index(number)
        content = desk.state_json(ledger.state(index, reader))
        return JSONResponse({**content, "suggestions": desk.suggestions(reader, index)})

    @router.post("/films/{number}/changes")
    async def change(request: Request, number: int) -> Response:
        reader = reader_of(request)
        index = desk.index(number)
        try:
            content = json.loads(await request.body())
        except (ValueError, RecursionError):
            raise HTTPException(400) from None
        return await run_in_threadpool(desk.change, reader, index, content)

    return router


class _Desk:
    """What the routes ask: the review and its ledger as pages need them."""

    def __init__(self, review: Review, ledger: Ledger) -> None:
        self._review = review
        self._ledger = ledger
        self._queued = frozenset(review.settings.films)
        self._findings = review.settings.findings
        self._standing = Standing(review, ledger)
        self._names: tuple[tuple[int, int, int], tuple[str, ...]] | None = None
        agreement(review, ledger, self._standing)  # before the first visitor waits for it

    def names(self) -> tuple[str, ...]:
        """Who reads now: review.json is looked at for every request, and read where it changed."""
        about = (self._review.folder / SETTINGS_FILE).stat()
        seen = about.st_ino, about.st_mtime_ns, about.st_size
        known = self._names
        if known is None or known[0] != seen:
            known = self._names = seen, read_settings(self._review.folder).names
        return known[1]

    def index(self, number: int) -> int:
        """The film with a number.

        Raises:
            HTTPException: 404, it is not to be reviewed.
        """
        if number - 1 not in self._queued:
            raise HTTPException(404)
        return number - 1

    def _is_adjudicator(self, reader: str) -> bool:
        return reader == self._review.settings.adjudicator

    def _films(self, reader: str) -> tuple[int, ...]:
        """What the reader is to read, in order: of the adjudicator what others dispute."""
        if self._is_adjudicator(reader):
            found = disputes(self._review, self._ledger, self._standing)
            return tuple(film for film in found if film in self._queued)
        return self._review.settings.films

    def _counts(self, reader: str) -> tuple[tuple[int, ...], Mapping[int, int], Mapping[int, int]]:
        """The reader's films, with how many findings are done, and of how many."""
        if not self._is_adjudicator(reader):
            whole = len(self._findings)
            films = self._review.settings.films
            return films, self._ledger.verdicts(reader, self._findings), dict.fromkeys(films, whole)
        found = disputes(self._review, self._ledger, self._standing)
        films = tuple(film for film in found if film in self._queued)
        return (
            films,
            {film: sum(one.is_decided for one in found[film]) for film in films},
            {film: len(found[film]) for film in films},
        )

    def queue(self, reader: str, page: int) -> dict[str, Any]:
        """A page of the queue."""
        films, done, of = self._counts(reader)
        pages = max(1, -(-len(films) // PAGE))
        page = min(max(page, 1), pages)
        rows = [
            {
                "place": place,
                "number": film + 1,
                "done": done.get(film, 0),
                "of": of[film],
            }
            for place, film in enumerate(films, start=1)
        ][(page - 1) * PAGE : page * PAGE]
        return {
            "rows": rows,
            "page": page,
            "pages": pages,
            "films": len(films),
            "finished": sum(done.get(film, 0) >= of[film] for film in films),
            "is_adjudicator": self._is_adjudicator(reader),
            "findings": self._findings,
        }

    def next_open(self, reader: str) -> int | None:
        """The number of the reader's first film that is not finished."""
        films, done, of = self._counts(reader)
        return next((film + 1 for film in films if done.get(film, 0) < of[film]), None)

    def film(self, reader: str, film: int) -> dict[str, Any]:
        """What the page of a film knows before its script asks for more."""
        films = self._films(reader)
        place = films.index(film) if film in films else None
        before = None if place is None or place == 0 else films[place - 1] + 1
        after = None if place is None or place + 1 == len(films) else films[place + 1] + 1
        width, height = self._review.frame(film)
        return {
            "number": film + 1,
            "place": None if place is None else place + 1,
            "films": len(films),
            "previous": before,
            "following": after,
            "width": width,
            "height": height,
            "findings": self._findings,
            "has_model": self._review.suggestions is not None,
            "is_adjudicator": self._is_adjudicator(reader),
            "disputed": self._disputed(reader, film),
        }

    def _disputed(self, reader: str, film: int) -> frozenset[Finding]:
        """The findings of a film that the adjudicator is to decide; readers are told of none."""
        if not self._is_adjudicator(reader):
            return frozenset()
        found = disputes(self._review, self._ledger, self._standing)
        return frozenset(one.finding for one in found.get(film, ()))

    def map(self, film: int, number: int) -> bytes:
        """The model's map of a finding, by the finding's place."""
        suggestions = self._review.suggestions
        if suggestions is None or not 0 <= number < len(self._findings):
            raise HTTPException(404)
        finding = self._findings[number]
        map_ = suggestions.map_of(film, finding)
        if map_ is None:
            raise HTTPException(404)
        cut = suggestions.about.map_thresholds[suggestions.about.findings.index(finding)]
        return map_png(map_, cut)

    def state_json(self, state: FilmState) -> dict[str, Any]:
        """A reader's state of a film."""
        return {
            "version": state.version,
            "can_undo": bool(state.reach.undoable),
            "can_redo": bool(state.reach.redoable),
            "findings": [
                assessment_to_json(state.assessments.get(finding, NOTHING))
                for finding in self._findings
            ],
        }

    def suggestions(self, reader: str, film: int) -> list[list[dict[str, Any]]]:
        """For each finding what others say of it: the data, the model, and for the adjudicator the
        readers, who stay without a name."""
        is_adjudicator = self._is_adjudicator(reader)
        said = self._ledger.said(film) if is_adjudicator else {}
        readers = readers_of(self._review, self._ledger) if is_adjudicator else ()
        told = []
        for finding in self._findings:
            groups = []
            for number, name in enumerate(readers, start=1):
                its = said.get((film, finding), {}).get(name, NOTHING)
                if its.verdict is not None:
                    groups.append(_reader_group(number, its))
            if (its_own := self._data_group(film, finding)) is not None:
                groups.append(its_own)
            if (of_model := self._model_group(film, finding)) is not None:
                groups.append(of_model)
            told.append(groups)
        return told

    def _data_group(self, film: int, finding: str) -> dict[str, Any] | None:
        data = self._review.data
        label = data.labels[film, data.findings.index(finding)]
        regions = data.with_regions("expert").regions(film, finding)
        if label != label and not regions:  # NaN: never assessed
            return None
        return {
            "by": DATA,
            "kind": "data",
            "title": "Data",
            "verdict": None if label != label else ("present" if label else "absent"),
            "regions": [shape_to_json(region.shape) for region in regions],
        }

    def _model_group(self, film: int, finding: str) -> dict[str, Any] | None:
        suggestions = self._review.suggestions
        score = None if suggestions is None else suggestions.score(film, finding)
        if suggestions is None or score is None:
            return None
        cut = suggestions.threshold(finding)
        shapes = suggestions.regions(film, finding, self._review.frame(film))
        return {
            # an answer to one model's region says nothing of another model's
            "by": f"{RUN}{suggestions.about.sha256[:12]}",
            "kind": "run",
            "title": "Model",
            "verdict": None if cut is None else ("present" if score >= cut else "absent"),
            "score": score,
            "threshold": cut,
            "regions": [shape_to_json(shape) for shape in shapes],
        }

    def change(self, reader: str, film: int, content: Any) -> Response:
        """Do what a page sent: 200 with the new state, 409 if it was behind, 422 if it is wrong."""
        try:
            after, notes = self._done(reader, film, content)
        except StaleError as fault:
            newest = self.state_json(self._ledger.state(film, reader))
            return JSONResponse({"words": str(fault), "state": newest}, status_code=409)
        except DataError as fault:
            newest = self.state_json(self._ledger.state(film, reader))
            return JSONResponse({"words": str(fault), "state": newest}, status_code=422)
        return JSONResponse({**self.state_json(after), "notes": notes})

    def _done(self, reader: str, film: int, content: Any) -> tuple[FilmState, list[str]]:
        where = "the change"
        if not isinstance(content, Mapping):
            raise DataError(f"{where}: not an object; reload the page")
        version, key, kind = content.get("version"), content.get("key"), content.get("kind")
        is_key = isinstance(key, str) and 0 < len(key) <= LONGEST_KEY and is_text(key)
        if type(version) is not int or not isinstance(key, str) or not is_key:
            raise DataError(
                f"{where}: needs the version it goes back to and a key; reload the page"
            )
        if kind == "undo":
            return self._ledger.undo(film, reader, version=version, key=key), []
        if kind == "redo":
            return self._ledger.redo(film, reader, version=version, key=key), []
        if kind != "edit":
            raise DataError(f"{where}: of kind {kind!r}; it can be edit, undo or redo")
        written, shown = content.get("findings"), content.get("shown")
        if not isinstance(written, Mapping) or not written:
            raise DataError(f"{where}: names no finding; reload the page")
        edits: dict[str, Assessment] = {}
        notes: list[str] = []
        finding_of = {str(number): finding for number, finding in enumerate(self._findings)}
        for number, content_of_it in written.items():
            finding = finding_of.get(number)
            if finding is None:
                raise DataError(f"{where}: finding {number[:20]!r} is not of this review")
            assessment = assessment_from_json(content_of_it, finding)
            self._check_suggested(reader, film, finding, assessment)
            edits[finding], said = checked_assessment(assessment, self._review.frame(film), finding)
            notes += said
        state = self._ledger.edit(
            film,
            reader,
            edits,
            version=version,
            key=key,
            suggestions_shown=shown if isinstance(shown, bool) else None,
        )
        return state, notes

    def _check_suggested(
        self, reader: str, film: int, finding: Finding, assessment: Assessment
    ) -> None:
        """Refuse regions that go back to a suggestion that nobody made."""
        named = {one.suggested for one in assessment.regions if one.suggested is not None}
        if named:
            before = self._ledger.state(film, reader).assessments.get(finding, NOTHING)
            # what was kept once stays, whatever is suggested now
            named -= {one.suggested for one in before.regions if one.suggested is not None}
        for one in sorted(named, key=lambda suggested: (suggested.by, suggested.number)):
            if one.number >= self._suggested_by(reader, film, finding, one.by):
                raise DataError(
                    f"{finding}: goes back to region {reprlib.repr(one.number)} that "
                    f"{one.by!r} suggests, and there is none; reload the page"
                )

    def _suggested_by(self, reader: str, film: int, finding: Finding, by: str) -> int:
        """How many regions of a film somebody suggests to the reader."""
        if by == DATA:
            group = self._data_group(film, finding)
        elif by.startswith(RUN):
            group = self._model_group(film, finding)
        else:
            return self._marked_by(reader, film, finding, by)
        return 0 if group is None or group["by"] != by else len(group["regions"])

    def _marked_by(self, reader: str, film: int, finding: Finding, by: str) -> int:
        """How many regions a reader may have marked when the adjudicator saw them: they go on."""
        if not self._is_adjudicator(reader):
            return 0
        said = self._ledger.said(film).get((film, finding), {})
        names = {
            f"{READER}{number}": name
            for number, name in enumerate(readers_of(self._review, self._ledger), start=1)
        }
        return MOST_REGIONS if names.get(by) in said else 0

    def overview(self, links: Links) -> dict[str, Any]:
        """What the owner sees: progress, agreement, and the readers' private links."""
        settings = read_settings(self._review.folder)
        review = dataclasses.replace(self._review, settings=settings)
        return {
            "name": self._review.data.name,
            "films": len(settings.films),
            "findings": settings.findings,
            "order": settings.order,
            "progress": progress(review, self._ledger, self._standing),
            "adjudicator": settings.adjudicator,
            "links": [(name, links.path(Visitor("reader", name))) for name in settings.names],
            "agreement": agreement(review, self._ledger, self._standing),
            "disputes": sum(
                not one.is_decided
                for its in disputes(review, self._ledger, self._standing).values()
                for one in its
            ),
        }


def _reader_group(number: int, said: Assessment) -> dict[str, Any]:
    return {
        "by": f"{READER}{number}",
        "kind": "reader",
        "title": f"Reader {number}",
        "verdict": said.verdict,
        "comment": said.comment,
        "regions": [shape_to_json(shape) for shape in said.shapes],
    }
