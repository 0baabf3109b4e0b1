"""A union's score and map are the largest of the parts'; its decisions are the parts' own."""

import numpy as np
import pytest

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.models.merged import MergedClassifier
from dwarf_cxr.models.outputs import ModelCard, Outputs

FINDINGS = ("Nodule", "Edema", "Mass")
PARTS = {"Nodule/Mass": ("Nodule", "Mass"), "Water": ("Edema",), "Any": ("Mass", "Edema", "Nodule")}


def card(scores=(0.2, 0.4, 0.65), maps=(0.3, 0.5, 0.1), priors=(0.2, 0.1, 0.4), prior=None):
    limits = [dict(zip(FINDINGS, values, strict=True)) for values in (scores, maps, priors)]
    prior = np.random.default_rng(2).random((3, 4, 4)) if prior is None else prior
    return ModelCard("m", "d", "f", "s", "isolated", "unit", *limits, prior.astype(np.float32))


class Fixed:
    """Answers drawn once, in the order asked for."""

    findings = FINDINGS
    image_size = 5

    def __init__(self, its_card=None, images=40):
        rng = np.random.default_rng(4)
        self.card = its_card or card()
        self.scores = rng.random((images, 3))
        self.maps = rng.random((images, 3, 2, 5)).astype(np.float32)
        self.prior = rng.random((3, 2, 5)).astype(np.float32)

    def predict(self, pixels, findings=None):
        columns = [FINDINGS.index(name) for name in findings or FINDINGS]
        maps = self.maps[: len(pixels), columns]
        extras = {"evidence": maps / 2, "prior": self.prior[columns]}
        return Outputs(self.scores[: len(pixels), columns], maps, extras)


def films(count):
    return np.zeros((count, 5, 5), np.uint8)


@pytest.mark.parametrize("count", [4, 1, 0])
def test_answers_are_the_largest_of_the_parts(count):
    model = Fixed()
    judge = MergedClassifier(model, PARTS)
    assert judge.findings == tuple(PARTS)
    outputs = judge.predict(films(count))
    assert outputs.probability.shape == outputs.present.shape == (count, 3)
    assert outputs.maps.shape == (count, 3, 2, 5)
    for place, (name, own) in enumerate(PARTS.items()):
        columns = [FINDINGS.index(part) for part in own]
        for image in range(count):
            scores = [model.scores[image, column] for column in columns]
            assert outputs.probability[image, place] == max(scores)
            map_ = model.maps[image, columns[0]]
            for column in columns[1:]:
                map_ = np.maximum(map_, model.maps[image, column])
            np.testing.assert_array_equal(outputs.maps[image, place], map_)
            np.testing.assert_array_equal(outputs.extras["evidence"][image, place], map_ / 2)
            np.testing.assert_array_equal(
                outputs.own.maps[image, judge.columns[name]], model.maps[image, columns]
            )
        np.testing.assert_array_equal(
            outputs.extras["prior"][place], np.max([model.prior[c] for c in columns], axis=0)
        )


def test_a_union_is_present_where_a_part_is_by_its_own_threshold():
    model = Fixed()
    present = MergedClassifier(model, PARTS).predict(films(40)).present
    limits = model.card.score_thresholds
    changed = 0
    for image in range(40):
        for place, own in enumerate(PARTS.values()):
            decided = False
            for part in own:
                if model.scores[image, FINDINGS.index(part)] >= limits[part]:
                    decided = True
            assert present[image, place] == decided
            largest = max(model.scores[image, FINDINGS.index(part)] for part in own)
            changed += decided != (largest >= max(limits[part] for part in own))
    assert changed > 5  # the largest score against the largest threshold says something else


def test_a_part_below_the_others_threshold_makes_the_union_present():
    model = Fixed()
    model.scores = np.array([[0.3, 0, 0.1], [0.2, 0, 0], [0.1999, 0, 0.6499], [0, 0, 0.65]])
    judge = MergedClassifier(model, {"Nodule/Mass": ("Nodule", "Mass")})
    assert judge.predict(films(4)).present[:, 0].tolist() == [1, 1, 0, 1]


def test_without_the_threshold_of_a_part_nothing_is_decided():
    judge = MergedClassifier(Fixed(card((0.2, None, 0.65), (None, 0.5, 0.1))), PARTS)
    present = judge.predict(films(6)).present
    assert np.isnan(present[:, 1:]).all()
    assert not np.isnan(present[:, 0]).any()
    assert judge.score_limits == {"Nodule/Mass": (0.2, 0.65), "Water": None, "Any": None}
    assert judge.map_limits == {"Nodule/Mass": None, "Water": (0.5,), "Any": None}


def test_parts_without_a_training_region_have_no_prior():
    prior = np.zeros((3, 4, 4))
    prior[0, 0, 0], prior[1, 0, 1] = 0.5, 0.25
    judge = MergedClassifier(Fixed(card(priors=(0.2, None, None), prior=prior)), PARTS)
    np.testing.assert_array_equal(judge.priors["Nodule/Mass"], prior[:1])
    np.testing.assert_array_equal(judge.priors["Any"], prior[[1, 0]])
    assert judge.prior_limits == {"Nodule/Mass": (0.2,), "Water": None, "Any": None}
    alone = MergedClassifier(Fixed(card(prior=prior)), {"Mass": ("Mass",)})
    assert alone.priors["Mass"].shape == (0, 4, 4)


def test_a_model_without_a_card_decides_nothing():
    model = Fixed()
    model.card = None
    with pytest.raises(CheckpointError, match="no card"):
        MergedClassifier(model, PARTS)
