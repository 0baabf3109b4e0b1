import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from dwarf_cxr.review.agreement import decide, difference, overlap, verdict_kappa
from dwarf_cxr.review.annotation import NOTHING, Assessment, MarkedRegion, Suggested
from tests.review.made import ABSENT, box, present, triangle

FRAME = (40, 20)


def test_kappa_is_scikit_learns():
    rng = np.random.default_rng(7)
    for _ in range(5):
        one, other = rng.choice(["present", "absent", "unsure"], (2, 37))
        other = np.where(rng.random(37) < 0.6, one, other)
        found = verdict_kappa(list(zip(one.tolist(), other.tolist(), strict=True)))
        assert found == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)


def test_kappa_without_meaning_is_none():
    assert verdict_kappa([]) is None
    assert verdict_kappa([("absent", "absent")] * 3) is None


def test_overlap_is_that_of_sets_of_pixels():
    one, other = [box(2, 3, 12, 9), box(10, 3, 15, 9)], [box(8, 5, 20, 11)]
    first = {(x, y) for x in range(2, 15) for y in range(3, 9)}
    second = {(x, y) for x in range(8, 20) for y in range(5, 11)}
    assert overlap(one, other, FRAME) == len(first & second) / len(first | second)
    assert overlap([], [], FRAME) is None
    assert overlap(one, [], FRAME) == 0


def test_what_calls_for_a_third_opinion():
    here, there = present(box(2, 3, 12, 9)), present(box(22, 3, 32, 9))
    nearly = present(box(2, 3, 11, 9))
    assert difference(here, NOTHING, FRAME) is None
    assert difference(here, ABSENT, FRAME).matters
    assert difference(here, there, FRAME).matters
    assert not difference(here, nearly, FRAME).matters
    assert not difference(ABSENT, ABSENT, FRAME).matters
    assert not difference(present(), present(), FRAME).matters


def test_who_decides():
    here, there = present(box(2, 3, 12, 9)), present(triangle((20, 2), (30, 2), (30, 9)))
    apart = decide({"anna": here, "ben": there}, ["anna", "ben"], "carla", FRAME)
    assert (apart.verdict, apart.regions) == ("present", ())
    assert [name for name, _ in apart.disputed] == ["anna", "ben"]
    agreed = decide(
        {"anna": here, "ben": present(box(3, 3, 12, 9))}, ["anna", "ben"], "carla", FRAME
    )
    assert agreed.disputed == ()
    ((name, region),) = agreed.regions
    assert (name, region.shape) == ("anna+ben", box(3, 3, 12, 9))
    torn = decide({"anna": here, "ben": ABSENT}, ["anna", "ben"], "carla", FRAME)
    assert torn.verdict is None
    assert torn.regions == ()
    third = decide({"anna": here, "ben": ABSENT, "carla": ABSENT}, ["anna", "ben"], "carla", FRAME)
    assert (third.verdict, third.readers) == ("absent", ("carla",))
    assert decide({"anna": NOTHING}, ["anna", "ben"], None, FRAME) is None
    alone = decide({"anna": here, "ben": NOTHING}, ["anna", "ben"], "carla", FRAME)
    assert alone.readers == ("anna",)
    # an adjudicator who looked and said nothing decides nothing
    assert decide({"anna": ABSENT, "carla": NOTHING}, ["anna"], "carla", FRAME).readers == ("anna",)


def test_refused_suggestions_are_known_but_do_not_count():
    refused = MarkedRegion(box(2, 3, 12, 9), "rejected", Suggested("run", 0))
    decided = decide({"anna": Assessment("present", (refused,))}, ["anna"], None, FRAME)
    assert decided.regions == ()
    assert decided.rejected == (refused,)
