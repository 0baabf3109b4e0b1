import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.bootstrap import patient_weights
from dwarf_cxr.reproduce.statistics import (
    Summary,
    paired_difference,
    refuse_other_films,
    seed_mean,
    spread,
)
from tests.reproduce.made import made_cases

PATIENTS = (0, 0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16)
DRAWS = 30


def naive_draws(tables, metric):
    """By repeating whole films as often as their patient is drawn, one draw after the other."""
    names = sorted({f"p{patient}" for patient in PATIENTS})
    values = []
    for weights in np.concatenate(list(patient_weights(len(names), DRAWS, 0))):
        rows = [
            row
            for row, patient in enumerate(tables[0].patient_ids)
            for _ in range(int(weights[names.index(patient)]))
        ]
        per_table = []
        for table in tables:
            per_finding = []
            for finding in range(len(table.findings)):
                if metric == "auc":
                    labels, scores = table.labels[rows, finding], table.scores[rows, finding]
                    if len(set(labels)) == 2:
                        per_finding.append(roc_auc_score(labels, scores))
                else:
                    per_finding.append(np.nanmean(table.maps["dice"][rows, finding]))
            per_table.append(np.mean(per_finding))
        values.append(np.mean(per_table))
    return np.array(values)


@pytest.fixture
def pairs():
    rng = np.random.default_rng()
    labels = (rng.random((len(PATIENTS), 2)) < 0.5).astype(np.float64)
    # enough of both kinds that every draw has some of each
    labels[:5], labels[-5:] = 1, 0
    rows = [
        [
            made_cases(rng, patients=PATIENTS, findings=("A", "B"), labels=labels, lift=lift)
            for _ in range(3)
        ]
        for lift in (0.0, 0.4)
    ]
    return rows


@pytest.mark.parametrize("metric", ["auc", "dice"])
def test_means_over_seeds_are_those_of_repeated_films(pairs, metric):
    tables = pairs[0]
    found = seed_mean(tables, metric, draws=DRAWS).summary()
    drawn = naive_draws(tables, metric)
    low, high = np.percentile(drawn, (2.5, 97.5))
    np.testing.assert_allclose((found.low, found.high), (low, high), rtol=1e-9)
    own = [seed_mean([table], metric, draws=0).summary().value for table in tables]
    assert found.value == pytest.approx(np.mean(own))
    assert found.sd == pytest.approx(np.std(own, ddof=1))
    assert found.seeds == 3


def test_a_difference_is_paired(pairs):
    one, two = (seed_mean(tables, "dice", draws=DRAWS) for tables in pairs)
    found = paired_difference(one, two)
    drawn = naive_draws(pairs[1], "dice") - naive_draws(pairs[0], "dice")
    np.testing.assert_allclose((found.low, found.high), np.percentile(drawn, (2.5, 97.5)))
    assert found.value == pytest.approx(two.summary().value - one.summary().value)
    nothing = paired_difference(one, one)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    assert not nothing.excludes_zero


def test_rows_with_other_findings_are_compared_on_what_both_know():
    rng = np.random.default_rng()
    wide = made_cases(rng, patients=PATIENTS, findings=("A", "B", "C"))
    narrow = made_cases(rng, patients=PATIENTS, findings=("C", "A"), labels=wide.labels[:, [2, 0]])
    refuse_other_films(wide, narrow)
    one, two = (seed_mean([table], "dice", draws=DRAWS) for table in (wide, narrow))
    own = [np.nanmean(table.maps["dice"], axis=0) for table in (wide, narrow)]
    expected = np.mean([own[1][1] - own[0][0], own[1][0] - own[0][2]])
    assert paired_difference(one, two).value == pytest.approx(expected)
    assert paired_difference(one, two).findings == 2


def test_a_finding_that_one_training_lacks_is_left_out():
    rng = np.random.default_rng()
    whole = made_cases(rng, patients=PATIENTS, findings=("A", "B"))
    partly = made_cases(rng, patients=PATIENTS, findings=("A", "B"), labels=whole.labels)
    partly.maps["dice"][:, 0] = np.nan
    found = seed_mean([whole, partly], "dice", draws=DRAWS).summary()
    own = [np.nanmean(table.maps["dice"][:, 1]) for table in (whole, partly)]
    assert found.value == pytest.approx(np.mean(own))
    assert found.findings == 1
    partly.maps["dice"][:, 1] = np.nan
    assert seed_mean([whole, partly], "dice", draws=DRAWS).summary() == Summary(None, seeds=2)


def test_a_difference_leaves_out_what_either_row_lacks():
    rng = np.random.default_rng()
    whole = made_cases(rng, patients=PATIENTS, findings=("A", "B"))
    partly = made_cases(rng, patients=PATIENTS, findings=("A", "B"), labels=whole.labels)
    partly.maps["dice"][:, 0] = np.nan
    one, two = (seed_mean([table], "dice", draws=DRAWS) for table in (whole, partly))
    own = [np.nanmean(table.maps["dice"][:, 1]) for table in (whole, partly)]
    assert paired_difference(one, two).value == pytest.approx(own[1] - own[0])
    assert paired_difference(two, one).value == pytest.approx(own[0] - own[1])


def test_other_films_are_refused():
    rng = np.random.default_rng()
    one = made_cases(rng, patients=PATIENTS, findings=("A", "B"))
    other = made_cases(rng, patients=PATIENTS, findings=("A", "B"), labels=1 - one.labels)
    with pytest.raises(DataError, match="different films"):
        seed_mean([one, other], "dice", draws=DRAWS)


@pytest.mark.parametrize(
    "change",
    [
        {"image_ids": tuple(f"other{number}" for number in range(len(PATIENTS)))},
        {"patient_ids": tuple(f"p{patient}" for patient in reversed(PATIENTS))},
        {"n_regions": np.full((len(PATIENTS), 2), 3.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_images_patients_or_regions_are_refused(change):
    one = made_cases(np.random.default_rng(), patients=PATIENTS, findings=("A", "B"))
    refuse_other_films(one, one)
    with pytest.raises(DataError, match="different films"):
        refuse_other_films(one, dataclasses.replace(one, **change))


def test_spread():
    found = spread([0.25, 0.75])
    assert (found.value, found.seeds) == (0.5, 2)
    assert found.sd == pytest.approx(0.5 / 2**0.5)
    assert spread([0.25]).sd is None
    assert spread([0.25, None]).value is None
    assert spread([]).value is None
