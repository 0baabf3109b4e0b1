from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.study.design import Comparison, choose_films, pairs_of, reading_list
from tests.study.made import FILMS, FINDINGS


def generator(seed=0):
    return np.random.default_rng(seed)


def comparisons_of(runs, findings, films):
    rng = generator(9)
    made, run_of_map = [], {}
    for finding in findings:
        for film in range(films):
            for pair in combinations(runs, 2):
                maps = []
                for run in pair:
                    maps.append(rng.bytes(4).hex())
                    run_of_map[maps[-1]] = run
                if rng.integers(2):
                    maps.reverse()
                made.append(
                    Comparison(rng.bytes(4).hex(), f"film{film}", finding, (maps[0], maps[1]))
                )
    return made, run_of_map


@pytest.mark.parametrize("with_regions", [False, True])
def test_films_have_the_finding(made_data, with_regions):
    chosen = choose_films(
        made_data, FINDINGS, 10, generator(), split="test", with_regions=with_regions
    )
    for finding in FINDINGS:
        its = chosen[finding]
        assert len(set(its)) == 10
        for index in its:
            assert made_data.splits[index] == "test"
            assert made_data.labels[index, made_data.findings.index(finding)] == 1
            assert made_data.regions(index, finding) or not with_regions
    # 20 films have both findings: no film is needed twice, but for the one without a region
    assert len({*chosen["Mass"], *chosen["Effusion"]}) == (19 if with_regions else 20)


def test_film_without_regions_is_left_out(made_data):
    first = made_data.indices("test")[0]
    chosen = choose_films(made_data, FINDINGS, 19, generator(), split="test", with_regions=True)
    assert first not in chosen["Mass"]


def test_seed_decides(made_data):
    def of(seed):
        return choose_films(
            made_data, FINDINGS, 5, generator(seed), split="test", with_regions=False
        )

    assert of(1) == of(1)
    assert of(1) != of(2)


def test_too_few_films_are_told_with_their_numbers(made_data):
    assert FILMS - 4 == 20
    with pytest.raises(DataError, match=r"of Mass \(20\), Effusion \(20\); give --per-finding 20$"):
        choose_films(made_data, FINDINGS, 21, generator(), split="test", with_regions=False)
    # and what is said to do does
    choose_films(made_data, FINDINGS, 20, generator(), split="test", with_regions=False)
    with pytest.raises(ConfigError, match="at least one"):
        choose_films(made_data, FINDINGS, 0, generator(), split="test", with_regions=False)


def test_remedies_where_findings_have_few_films_or_none(made_data):
    import dataclasses

    labels = made_data.labels.copy()
    mass, effusion = (made_data.findings.index(name) for name in FINDINGS)
    labels[made_data.indices("test")[3:], mass] = 0
    few = dataclasses.replace(made_data, labels=labels)

    def fault(data, findings=FINDINGS):
        with pytest.raises(DataError) as raised:
            choose_films(data, findings, 10, generator(), split="test", with_regions=False)
        return str(raised.value).split("; ")[1]

    assert fault(few) == "give --per-finding 3 or leave them out with --findings Effusion"
    labels[:, mass] = 0
    assert fault(few) == "leave them out with --findings Effusion"
    labels[made_data.indices("test")[2:], effusion] = 0
    assert fault(few) == "give --per-finding 2 --findings Effusion"
    labels[:, effusion] = 0
    assert fault(few) == "take other data or another --split"


def test_another_patient_for_another_finding_while_there_is_one(made_data):
    """Films of one patient are no independent ones: 12 patients of two films each."""
    import dataclasses

    names = tuple(f"p{number // 2}" for number in range(len(made_data.patient_ids)))
    twice = dataclasses.replace(made_data, patient_ids=names)
    for seed in range(10):
        chosen = choose_films(twice, FINDINGS, 5, generator(seed), split="test", with_regions=False)
        assert len({names[index] for its in chosen.values() for index in its}) == 10
    # where patients are used up, another of their films serves
    chosen = choose_films(twice, FINDINGS, 10, generator(), split="test", with_regions=False)
    assert len({index for its in chosen.values() for index in its}) == 20


def test_one_film_of_a_patient(made_data):
    import dataclasses

    same = dataclasses.replace(made_data, patient_ids=("one",) * len(made_data.patient_ids))
    with pytest.raises(DataError, match=r"Mass \(1\)"):
        choose_films(same, FINDINGS, 2, generator(), split="test", with_regions=False)


@pytest.mark.parametrize("runs", [("a", "b"), ("c", "a", "b")])
@pytest.mark.parametrize("films", [5, 4, 1])
def test_sides_are_balanced(runs, films):
    comparisons, run_of_map = comparisons_of(runs, ("Mass", "Edema", "Nodule"), films)
    by_id = {one.comparison_id: one for one in comparisons}
    for seed in range(20):
        places = reading_list(comparisons, run_of_map, repeats=0, generator=generator(seed))
        assert sorted(place.comparison_id for place in places) == sorted(by_id)
        first_left = Counter()
        for place in places:
            one = by_id[place.comparison_id]
            names = [run_of_map[name] for name in one.maps]
            left = names[int(place.swapped)]
            pair = tuple(sorted(names))
            side = 1 if left == pair[0] else -1
            first_left[pair] += side
            first_left[pair, one.finding] += side
        assert all(abs(difference) <= 1 for difference in first_left.values())


def test_order_and_sides_say_nothing_of_the_runs():
    """Over many readers, a comparison comes at every place and on both sides equally often."""
    comparisons, run_of_map = comparisons_of(("a", "b"), ("Mass", "Edema"), 5)
    places, left = Counter(), Counter()
    for seed in range(400):
        order = reading_list(comparisons, run_of_map, repeats=0, generator=generator(seed))
        places[[one.comparison_id for one in order].index(comparisons[0].comparison_id)] += 1
        left["first" if not order[0].swapped else "second"] += 1
    assert len(places) == 10
    assert max(places.values()) < 80
    assert 150 < left["first"] < 250


@pytest.mark.parametrize("repeats", [1, 3, 7])
def test_repeats_are_far_apart_with_sides_exchanged(repeats):
    comparisons, run_of_map = comparisons_of(("a", "b"), ("Mass", "Edema"), 5)
    for seed in range(30):
        order = reading_list(comparisons, run_of_map, repeats=repeats, generator=generator(seed))
        assert len(order) == 10 + repeats
        assert sum(place.repeat for place in order) == repeats
        for position, place in enumerate(order):
            if place.repeat:
                (before,) = [
                    (at, one)
                    for at, one in enumerate(order)
                    if one.comparison_id == place.comparison_id and not one.repeat
                ]
                assert position - before[0] > 2
                assert before[1].swapped != place.swapped


def test_too_many_repeats():
    comparisons, run_of_map = comparisons_of(("a", "b"), ("Mass",), 4)
    with pytest.raises(ConfigError, match="of 4 comparisons at most 3"):
        reading_list(comparisons, run_of_map, repeats=4, generator=generator())


def test_every_two_runs():
    assert pairs_of(["c", "a", "b"]) == [("c", "a"), ("c", "b"), ("a", "b")]
