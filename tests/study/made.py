"""A study of tiny random models on a few generated films, through the real doors."""

import secrets
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from sqlmodel import select

from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.models.checkpoint import save_model
from dwarf_cxr.study.answers import Given, Item, Reader, open_answers, save_answer
from dwarf_cxr.study.design import Comparison, pairs_of, reading_list
from dwarf_cxr.study.folder import Key, RunKey, Study, read_key
from dwarf_cxr.web.store import reading
from tests.reporting.made import tiny_model

FINDINGS = ("Mass", "Effusion")
SIZE, WIDTH, HEIGHT = 64, 96, 72
FILMS = 24
"""Of the test split; every one has both findings but for the last four."""
RUNS = {"zebra-one": "dwarf", "okapi-two": "gain", "tapir-three": "direct"}
"""Names of run folders and their methods."""


def write_data(folder: Path) -> PreparedData:
    """Films wider than high with a bright box per finding."""
    rng = np.random.default_rng(7)
    radiographs = []
    for number, split in enumerate(["train", "val", *["test"] * FILMS]):
        film = rng.integers(60, 100, (HEIGHT, WIDTH), dtype=np.uint8)
        labels = dict.fromkeys(FINDINGS, number < FILMS - 2)
        regions = []
        for place, name in enumerate(FINDINGS):
            if labels[name]:
                x, y = 10.0 + 40 * place, float(rng.integers(5, 40))
                film[int(y) : int(y) + 14, int(x) : int(x) + 20] = 200
                # the first film of the test split was never drawn on
                if number != 2:
                    regions.append(Region(name, Box(x, y, x + 20, y + 14)))
        path = folder.with_name("films") / f"giraffe{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), film)
        radiographs.append(
            Radiograph(
                f"giraffe{number}", f"walrus{number}", path, labels, tuple(regions), None, split
            )
        )
    source = SourceSet("made", FINDINGS, tuple(radiographs), "generated", "CC0-1.0", "nobody")
    return prepare(source, folder, size=SIZE, workers=1, progress=lambda done, total: None)


def write_models(folder: Path, data: PreparedData) -> list[Path]:
    """A bare model folder for each of `RUNS`."""
    for seed, (name, method) in enumerate(RUNS.items()):
        model = tiny_model(data, seed=seed, method=method, findings=FINDINGS)
        save_model(model, folder / name)
    return [folder / name for name in RUNS]


def answer_all(study: Study, say: Callable[[str, bool, str], str], reader: str) -> None:
    """Answer a reader's whole list.

    Args:
        say: the answer, from the question, whether the first run is left, and the finding.
    """
    engine, key = open_answers(study), read_key(study.folder)
    order = [run.name for run in key.runs]
    with reading(engine) as session:
        items = session.exec(select(Item).join(Reader).where(Reader.name == reader)).all()
    for item in items:
        one = study.by_id[item.comparison_id]
        left, right = (key.run_of_map[name] for name in one.maps)
        if item.swapped:
            left, right = right, left
        for question in ("accuracy", "specificity", "overall"):
            value = say(question, order.index(left) < order.index(right), one.finding)
            save_answer(engine, item, question, value, secrets.token_hex(8))
        save_answer(engine, item, "confidence", "4", secrets.token_hex(8))
    engine.dispose()


def design(runs, films, findings=("Mass", "Edema"), *, seed=0):
    """A study in memory: every finding on its own films."""
    rng = np.random.default_rng(seed)
    comparisons, run_of_map = [], {}
    for film in range(films):
        for number, pair in enumerate(pairs_of(runs)):
            maps = [f"{film}-{number}-{side}" for side in range(2)]
            run_of_map.update(zip(maps, pair, strict=True))
            if rng.integers(2):
                maps.reverse()
            comparisons.append(
                Comparison(
                    f"c{film}-{number}",
                    f"f{film}",
                    findings[film % len(findings)],
                    (maps[0], maps[1]),
                )
            )
    study = Study(Path("none"), seed, 0, False, False, "made", "0", "now", (), tuple(comparisons))
    key = Key(tuple(RunKey(run, "dwarf", run, "0") for run in runs), run_of_map, {})
    return study, key


def given_by(study, key, reader, say, *, repeats=0, seed=0, questions=("overall",)):
    """A reader's answers; `say` of a comparison and a question: its run, or None for a tie."""
    places = reading_list(
        study.comparisons, key.run_of_map, repeats=repeats, generator=np.random.default_rng(seed)
    )
    given = []
    for position, place in enumerate(places, start=1):
        one = study.by_id[place.comparison_id]
        left = key.run_of_map[one.maps[int(place.swapped)]]
        answers = {}
        for question in questions:
            run = say(one, question)
            answers[question] = "tie" if run is None else ("A" if run == left else "B")
        given.append(
            Given(
                reader, position, one.comparison_id, place.swapped, place.repeat, answers, 0, "now"
            )
        )
    return given
