"""Thresholds that peek, against scikit-learn at every threshold there is."""

import numpy as np
import pytest
from sklearn import metrics as sk

from dwarf_cxr.evaluation.cases import Cases
from dwarf_cxr.evaluation.oracle import oracle, oracle_threshold
from tests.map_tables import empty_map_tables

FINDINGS = ("Mass", "Edema", "Hernia")


def made_cases(seed, images=47):
    """Two patients of three have two films; Edema is assessed on some, Hernia has no positive."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((images, 3)) < 0.35).astype(float)
    labels[rng.random(images) < 0.3, 1] = np.nan
    labels[:, 2] = 0
    scores = np.round(rng.normal(size=(images, 3)) + np.nan_to_num(labels), 1)
    return Cases(
        image_ids=tuple(f"film{number}" for number in range(images)),
        patient_ids=tuple(f"p{number * 3 // 5}" for number in range(images)),
        findings=FINDINGS,
        labels=labels,
        scores=scores,
        present=np.zeros((images, 3)),
        n_regions=np.zeros((images, 3)),
        maps=empty_map_tables(images, 3),
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("metric", "quality"), [("mcc", sk.matthews_corrcoef), ("f1", sk.f1_score)]
)
def test_no_threshold_is_better(seed, metric, quality):
    cases = made_cases(seed)
    block = oracle(cases, draws=20, seed=0)
    block = block if metric == "mcc" else block["max_f1"]
    for column, name in enumerate(FINDINGS[:2]):
        known = ~np.isnan(cases.labels[:, column])
        labels, scores = cases.labels[known, column], cases.scores[known, column]
        reached = {
            limit: quality(labels, scores >= limit)
            for limit in [*scores, scores.min() - 1, scores.max() + 1]
        }
        best = max(reached.values())
        threshold = block["thresholds"][name]
        assert threshold == max(limit for limit, one in reached.items() if one > best - 1e-12)
        entry = block["findings"][name]
        for key, oracle_of in (
            ("mcc", sk.matthews_corrcoef),
            ("f1", sk.f1_score),
            ("accuracy", sk.accuracy_score),
        ):
            assert entry[key]["value"] == pytest.approx(oracle_of(labels, scores >= threshold))
            assert entry[key]["low"] <= entry[key]["value"] <= entry[key]["high"]
            assert entry[key]["n"] == known.sum()
        assert entry[metric]["value"] == pytest.approx(best)


def test_macro_is_the_mean_of_the_findings_that_have_both_classes():
    block = oracle(made_cases(2), draws=20, seed=0)
    for part in (block, block["max_f1"]):
        for metric in ("mcc", "f1", "accuracy"):
            values = [part["findings"][name][metric]["value"] for name in FINDINGS[:2]]
            assert part["macro"][metric]["value"] == pytest.approx(np.mean(values))
            assert part["macro"][metric]["n"] == 2
        assert part["thresholds"]["Hernia"] is None
        assert part["findings"]["Hernia"]["mcc"] == {
            "value": None,
            "reason": "no image with the finding",
        }
        assert "looks at the evaluated labels and is no result" in part["policy"]
    assert "largest MCC" in block["policy"]
    assert "largest F1" in block["max_f1"]["policy"]


def test_stored_decisions_have_no_part():
    cases = made_cases(4)
    before = cases.present.copy()
    one = oracle(cases, draws=10, seed=0)
    cases.present[:] = 1
    assert oracle(cases, draws=10, seed=0) == one
    assert not before.any()


def test_scores_that_rank_the_wrong_way_call_all_present():
    """KAD starts at an MCC of 0: no threshold that does worse than saying nothing is taken."""
    labels, scores = np.array([1.0, 1, 0, 0, 0]), np.array([0.1, 0.2, 0.5, 0.6, 0.7])
    assert oracle_threshold(labels, scores, lambda scored: scored.mcc) == 0.1


@pytest.mark.parametrize("labels", [[], [1.0, 1.0], [0.0, np.nan]])
def test_one_class_has_no_threshold(labels):
    scores = np.linspace(0, 1, len(labels))
    assert oracle_threshold(np.array(labels), scores, lambda scored: scored.f1) is None
