"""A union's score and map are the largest of the parts', and so is what the card says."""

import numpy as np
import pytest

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.merged import MergedClassifier, merged_card
from dwarf_cxr.models.outputs import ModelCard, Outputs

FINDINGS = ("Nodule", "Edema", "Mass")
PARTS = {"Nodule/Mass": ("Nodule", "Mass"), "Water": ("Edema",)}


class Fixed:
    """Answers drawn once, in the order asked for."""

    findings = FINDINGS
    image_size = 5
    card = None

    def __init__(self):
        rng = np.random.default_rng(4)
        self.scores = rng.random((4, 3))
        self.maps = rng.random((4, 3, 2, 5)).astype(np.float32)
        self.prior = rng.random((3, 2, 5)).astype(np.float32)

    def predict(self, pixels, findings=None):
        columns = [FINDINGS.index(name) for name in findings or FINDINGS]
        maps = self.maps[: len(pixels), columns]
        extras = {"evidence": maps / 2, "prior": self.prior[columns]}
        return Outputs(self.scores[: len(pixels), columns], maps, extras)


def card(thresholds=(0.2, 0.4, 0.3)):
    limits = dict(zip(FINDINGS, thresholds, strict=True))
    prior = np.zeros((3, 2, 2), np.float32)
    return ModelCard("m", "d", "f", "s", "isolated", "unit", limits, limits, limits, prior)


@pytest.mark.parametrize("asked", [None, ("Water", "Nodule/Mass"), ("Nodule/Mass",), ("Water",)])
@pytest.mark.parametrize("count", [4, 1, 0])
def test_answers_are_the_largest_of_the_parts(asked, count):
    model = Fixed()
    judge = MergedClassifier(model, PARTS, merged_card(card(), FINDINGS, PARTS))
    outputs = judge.predict(np.zeros((count, 5, 5), np.uint8), asked)
    names = asked or tuple(PARTS)
    assert outputs.probability.shape == (count, len(names))
    assert outputs.maps.shape == (count, len(names), 2, 5)
    for place, name in enumerate(names):
        columns = [FINDINGS.index(part) for part in PARTS[name]]
        for image in range(count):
            scores = [model.scores[image, column] for column in columns]
            assert outputs.probability[image, place] == max(scores)
            map_ = model.maps[image, columns[0]]
            for column in columns[1:]:
                map_ = np.maximum(map_, model.maps[image, column])
            np.testing.assert_array_equal(outputs.maps[image, place], map_)
            np.testing.assert_array_equal(outputs.extras["evidence"][image, place], map_ / 2)
        np.testing.assert_array_equal(
            outputs.extras["prior"][place], np.max([model.prior[c] for c in columns], axis=0)
        )


def test_a_part_is_no_finding_of_the_merged_classifier():
    judge = MergedClassifier(Fixed(), PARTS, merged_card(card(), FINDINGS, PARTS))
    assert (judge.findings, judge.image_size) == (("Nodule/Mass", "Water"), 5)
    with pytest.raises(ConfigError, match="'Mass'"):
        judge.predict(np.zeros((1, 5, 5), np.uint8), ["Mass"])


def test_the_card_of_a_merged_finding():
    prior = np.zeros((3, 2, 2), np.float32)
    prior[0, 0, 0], prior[1, 0, 1] = 0.5, 0.25
    card = ModelCard(
        "m", "d", "f", "s", "isolated", "unit",
        {"a": 0.2, "b": 0.4, "c": 0.3},
        {"a": 0.2, "b": None, "c": 0.1},
        {"a": 0.2, "b": 0.1, "c": None},
        prior,
    )  # fmt: skip
    parts = {"ab": ("a", "b"), "ac": ("a", "c"), "c": ("c",)}
    merged = merged_card(card, ("a", "b", "c"), parts)
    assert merged.score_thresholds == {"ab": 0.4, "ac": 0.3, "c": 0.3}
    assert merged.map_thresholds == {"ab": None, "ac": 0.2, "c": 0.1}
    assert merged.prior_thresholds == {"ab": 0.2, "ac": 0.2, "c": None}  # c has no region at all
    np.testing.assert_array_equal(merged.train_prior[0], [[0.5, 0.25], [0, 0]])
    np.testing.assert_array_equal(merged.train_prior[1], prior[0])
