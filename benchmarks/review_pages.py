"""How fast the review's pages answer: `python benchmarks/review_pages.py`.

Made-up films of 1024×1024 pixels with the words of two readers on every finding; between any two
requests one of the readers changes something, as while both are at work. Wall time of a request,
without a network; the median of all rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from made_up import made_up, noise
from starlette.testclient import TestClient
from timing import Target, heading, line

from dwarf_cxr.data.records import Box, Polygon
from dwarf_cxr.review.annotation import Assessment, MarkedRegion
from dwarf_cxr.review.folder import Review, Settings, write_settings
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.pages import application
from dwarf_cxr.web.links import OWNER, Links, Visitor

READERS = ("anna", "ben")
THIRD = "carla"
LIMIT = 50.0
"""Milliseconds."""


def main() -> None:
    """Print a table."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--films", type=int, default=1000)
    words.add_argument("--findings", type=int, default=8)
    words.add_argument("--rounds", type=int, default=31)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        review = begun(Path(folder), given.films, given.findings)
        with closing(Ledger(review.database)) as ledger:
            fill(ledger, given.films, review.settings.findings)
            measure(review, ledger, given.rounds)


def begun(folder: Path, films: int, count: int) -> Review:
    """A review of noise."""
    generator = np.random.default_rng(1)
    findings = tuple(f"finding {number}" for number in range(count))
    pixels = noise(folder / "pixels", (films, 64, 64), generator)
    data = made_up(folder, pixels, np.zeros((films, count)), findings, {})
    settings = Settings(
        data=str(folder),
        data_fingerprint=data.fingerprint,
        findings=findings,
        readers=READERS,
        adjudicator=THIRD,
        run=None,
        order="data",
        films=tuple(range(films)),
    )
    write_settings(folder, settings)
    return Review(folder, settings, data, None)


def fill(ledger: Ledger, films: int, findings: tuple[str, ...]) -> None:
    """Both readers' words: half of the findings present, with a box or an outline each."""
    generator = np.random.default_rng(2)
    is_present = generator.random((films, len(findings))) < 0.5
    places = generator.uniform(200, 600, (films, len(findings), 2))
    for reader in READERS:
        says = is_present ^ (generator.random(is_present.shape) < 0.1)
        around = places + generator.normal(0, 30, places.shape)
        ledger.enter(
            reader,
            {
                film: {
                    finding: words_at(around[film, number], number)
                    if says[film, number]
                    else Assessment("absent")
                    for number, finding in enumerate(findings)
                }
                for film in range(films)
            },
        )


def words_at(place: np.ndarray, number: int) -> Assessment:
    """A finding that is present at a place."""
    x, y = map(float, place)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outline = Polygon(np.stack([x + 90 * np.cos(angle), y + 120 * np.sin(angle)], axis=1))
    shape = Box(x - 90, y - 120, x + 90, y + 120) if number % 2 else outline
    return Assessment("present", (MarkedRegion(shape),))


def measure(review: Review, ledger: Ledger, rounds: int) -> None:
    """Time every page."""
    started = time.perf_counter()
    links = Links.of(review.folder)
    guard = application(review, ledger, links)
    ready = time.perf_counter() - started
    films, count = len(review.settings.films), len(review.settings.findings)
    heading(f"Review, {films} films, {count} findings, 2 readers ({ready:.1f} s to be ready)")
    for visitor in (OWNER, Visitor("reader", "anna"), Visitor("reader", THIRD)):
        client = TestClient(guard, "http://localhost")
        client.get(links.path(visitor))
        client.headers["X-CSRF-Token"] = links.form_token(visitor)
        told = client.get("/").text
        if visitor == OWNER:
            timed(visitor, "/", lambda client=client: client.get("/"), ledger, rounds)
            continue
        # the third's first film is one that is disputed
        start = told.index("/films/") + len("/films/")
        number = told[start : told.index('"', start)]
        for path in ("/", "/?page=2", "/next", f"/films/{number}", f"/films/{number}/state"):
            timed(
                visitor,
                path,
                lambda client=client, path=path: client.get(path, follow_redirects=False),
                ledger,
                rounds,
            )
        post = f"/films/{number}/changes"
        timed(
            visitor,
            "a change",
            lambda client=client, post=post, number=number: client.post(
                post,
                json={
                    "kind": "edit",
                    "version": client.get(f"/films/{number}/state").json()["version"],
                    "key": str(time.perf_counter_ns()),
                    "findings": {"0": {"verdict": "unsure", "comment": str(time.time_ns())}},
                },
            ),
            ledger,
            rounds,
        )


def timed(
    visitor: Visitor, what: str, ask: Callable[[], object], ledger: Ledger, rounds: int
) -> None:
    """A line of the table."""
    taken = []
    for number in range(rounds):
        state = ledger.state(1, "ben")
        said = {"finding 1": words_at(np.array([400.0 + number, 400.0]), number)}
        ledger.edit(1, "ben", said, version=state.version, key=str(time.perf_counter_ns()))
        started = time.perf_counter()
        answer = ask()
        taken.append(1e3 * (time.perf_counter() - started))
        status = answer.status_code  # type: ignore[attr-defined]
        if status not in (200, 303):
            raise RuntimeError(f"{what}: status {status}")
    median = statistics.median(taken)
    target = Target(LIMIT, at_most=True)
    line(
        f"{visitor.name} {what}",
        f"median of {rounds}",
        f"most {max(taken):.0f} ms",
        median,
        " ms",
        target,
    )


if __name__ == "__main__":
    main()
