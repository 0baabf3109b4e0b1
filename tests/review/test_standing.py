"""What is kept between requests is what would be found from scratch."""

from contextlib import closing

import numpy as np
import pytest

from dwarf_cxr.review import standing as module
from dwarf_cxr.review.annotation import Assessment
from dwarf_cxr.review.folder import begin
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.progress import agreement, disputes, progress
from dwarf_cxr.review.standing import Standing
from tests.review.made import ABSENT, FINDINGS, HEIGHT, WIDTH, box, present, write_data

READERS = ("anna", "ben", "dora", "carla")


@pytest.fixture
def review(tmp_path):
    write_data(tmp_path / "data")
    folder = tmp_path / "review"
    return begin(folder, tmp_path / "data", readers=READERS[:2], adjudicator="carla")


@pytest.fixture
def ledger(review):
    with closing(Ledger(review.database)) as ledger:
        yield ledger


def some_words(rng):
    kind = rng.integers(4)
    if kind == 0:
        return ABSENT
    if kind == 1:
        return Assessment("unsure", (), str(rng.integers(100)))
    x, y = rng.integers(0, (WIDTH - 40, HEIGHT - 40))
    return present(box(x, y, x + rng.integers(10, 40), y + rng.integers(10, 40)))


def change(ledger, rng):
    film, reader = int(rng.integers(6)), str(rng.choice(READERS))
    state = ledger.state(film, reader)
    key = str(rng.integers(1 << 60))
    if rng.random() < 0.2:
        ledger.undo(film, reader, version=state.version, key=key)
    else:
        touched = rng.choice(FINDINGS, rng.integers(1, 4), replace=False)
        edits = {str(finding): some_words(rng) for finding in touched}
        ledger.edit(film, reader, edits, version=state.version, key=key)


@pytest.mark.parametrize("seed", range(3))
def test_it_keeps_up_with_every_change(review, ledger, seed):
    rng, kept = np.random.default_rng(seed), Standing(review, ledger)
    for _ in range(60):
        for _ in range(rng.integers(3)):
            change(ledger, rng)
        for ask in (agreement, disputes, progress):
            assert ask(review, ledger, kept) == ask(review, ledger)
    assert disputes(review, ledger)
    assert agreement(review, ledger)


def test_only_what_changed_is_compared_anew(review, ledger, monkeypatch):
    both = {film: dict.fromkeys(FINDINGS, present(box(5, 5, 40, 40))) for film in range(6)}
    for reader in ("anna", "ben"):
        ledger.enter(reader, both)
    compared, compare = [], module.difference

    def counting(one, other, frame):
        compared.append((one, other))
        return compare(one, other, frame)

    monkeypatch.setattr(module, "difference", counting)
    kept = Standing(review, ledger)
    disputes(review, ledger, kept)
    assert len(compared) == 18
    agreement(review, ledger, kept)
    disputes(review, ledger, kept)
    assert len(compared) == 18
    state = ledger.state(2, "ben")
    words = {"Mass": present(box(50, 5, 80, 40))}
    ledger.edit(2, "ben", words, version=state.version, key="k")
    (dispute,) = disputes(review, ledger, kept)[2]
    assert dispute.finding == "Mass"
    assert dispute.why.iou == 0
    assert len(compared) == 19


def test_what_was_handed_out_does_not_change(review, ledger):
    kept = Standing(review, ledger)
    ledger.edit(0, "anna", {"Mass": ABSENT}, version=0, key="a")
    before = kept.said()
    seen = {finding: dict(its) for finding, its in before.items()}
    ledger.edit(0, "ben", {"Mass": ABSENT}, version=0, key="b")
    assert set(kept.said()["Mass"][0]) == {"anna", "ben"}
    assert {finding: dict(its) for finding, its in before.items()} == seen
