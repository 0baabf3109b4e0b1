import numpy as np
import pytest

from dwarf_cxr.data.batches import RegionTargets
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.evaluation.references import mean_coverage
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.training.few_shot import keep_region_cases, keep_region_share
from dwarf_cxr.training.loop import train
from tests.tiny import FINDINGS, run_config, settings, write_bert, write_data, write_vit


def marked(data: PreparedData, split: str = "train") -> list[set[str]]:
    """The images of a split that each finding is supervised on."""
    supervised = data.has_region() & (data.labels == 1)
    return [
        {data.image_ids[index] for index in data.indices(split) if supervised[index, column]}
        for column in range(len(data.findings))
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PreparedData:
    return write_data(tmp_path_factory.mktemp("few") / "data", train=23)


def test_so_many_cases_of_every_finding_nested(data):
    before = [set() for _ in FINDINGS]
    for cases in (1, 2, 4, 100):
        now = marked(keep_region_cases(data, cases, seed=7))
        for own, earlier, every in zip(now, before, marked(data), strict=True):
            assert len(own) == min(cases, len(every))
            assert earlier <= own <= every
        before = now
    assert before == marked(data)


def test_the_choice_is_the_seeds_and_not_the_other_findings(data):
    one = marked(keep_region_cases(data, 3, seed=7))
    assert marked(keep_region_cases(data, 3, seed=7)) == one
    assert any(marked(keep_region_cases(data, 3, seed=seed)) != one for seed in (8, 9, 10))
    alone = keep_region_cases(data.restrict(FINDINGS[1:2]), 3, seed=7)
    assert marked(alone) == one[1:2]


def test_labels_and_other_splits_stay(data):
    few = keep_region_cases(data, 1, seed=7)
    np.testing.assert_array_equal(few.labels, data.labels)
    for split in ("val", "test"):
        assert marked(few, split) == marked(data, split)


def test_a_share_of_the_annotated_images_nested(data):
    every = set.union(*marked(data))
    before: set[str] = set()
    for share, kept in ((0.01, 1), (0.25, round(len(every) / 4)), (0.5, round(len(every) / 2))):
        now = marked(keep_region_share(data, share, seed=7))
        images = set.union(*now)
        assert len(images) == kept
        assert before <= images
        for own, all_of_it in zip(now, marked(data), strict=True):
            assert own == all_of_it & images, "an image keeps all of its regions or none"
        before = images
    assert marked(keep_region_share(data, 1.0, seed=7)) == marked(data)


def test_the_share_is_drawn_by_the_seed_and_leaves_the_rest(data):
    half = keep_region_share(data, 0.5, seed=7)
    assert marked(keep_region_share(data, 0.5, seed=7)) == marked(half)
    others = [marked(keep_region_share(data, 0.5, seed=seed)) for seed in (8, 9, 10)]
    assert any(other != marked(half) for other in others)
    np.testing.assert_array_equal(half.labels, data.labels)
    assert marked(half, "val") == marked(data, "val")


def test_a_share_of_no_annotated_image_is_none(data):
    bare = keep_region_cases(data, 0, seed=7)
    assert marked(keep_region_share(bare, 0.5, seed=7)) == [set() for _ in FINDINGS]


def test_a_training_sees_those_regions_alone(data, tmp_path, monkeypatch):
    vit, bert = write_vit(tmp_path / "vit"), write_bert(tmp_path / "bert")
    config = run_config(data, vit, bert, ["epochs=1", "region_cases=2"], seed=5)
    seen = []
    of = RegionTargets.of.__func__
    monkeypatch.setattr(
        RegionTargets,
        "of",
        classmethod(lambda cls, *words: seen.append(of(cls, *words)) or seen[-1]),
    )
    train(config, tmp_path / "run", report=lambda line, done, total: None)
    few = keep_region_cases(data, 2, seed=5)
    assert [int((column >= 0).sum()) for column in seen[0].rows.T] == [2, 2, 2]
    card = load_model(tmp_path / "run").card
    np.testing.assert_array_equal(card.train_prior, mean_coverage(few, data.indices("train")))
    assert not np.array_equal(card.train_prior, mean_coverage(data, data.indices("train")))


def test_no_case_at_all_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="region_cases"):
        settings(tmp_path, tmp_path, ["region_cases=0"])
