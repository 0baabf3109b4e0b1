import dataclasses

import numpy as np
import pytest
import torch

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.training import teachers
from dwarf_cxr.training.few_shot import keep_region_cases
from dwarf_cxr.training.teachers import (
    TeacherSettings,
    build_net,
    cross_fit,
    deal_folds,
    describe,
    load_net,
    marked_images,
    present_images,
    probabilities,
    save_net,
    segmentation_loss,
    small_images,
    train_net,
    why_untaught,
)
from tests.training.made_teaching import RARE, SIZE, TEACHABLE, mark_of, write_teaching


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PreparedData:
    return write_teaching(tmp_path_factory.mktemp("teachers") / "data")


def squares(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright square, and the square."""
    rng = np.random.default_rng(seed)
    images = rng.integers(40, 90, (count, 32, 32), dtype=np.uint8)
    shares = np.zeros_like(images)
    for image, share in zip(images, shares, strict=True):
        x, y = rng.integers(4, 18, 2)
        share[y : y + 10, x : x + 8] = 255
        image[share > 0] = 220
    return images, shares


def test_patients_are_dealt_whole_and_evenly():
    rng = np.random.default_rng(3)
    patients = [f"p{number}" for number in rng.integers(0, 40, 150)]
    present = rng.random(150) < 0.4
    with_region = present & (rng.random(150) < 0.3)
    fold_of = deal_folds(patients, with_region, present, 4, np.random.default_rng(1))
    assert fold_of.keys() == set(patients)
    assert set(fold_of.values()) == {0, 1, 2, 3}
    marked = {one for one, has in zip(patients, with_region, strict=True) if has}
    ill = {one for one, has in zip(patients, present, strict=True) if has} - marked
    for group in (marked, ill, set(patients)):
        sizes = np.bincount([fold_of[one] for one in group], minlength=4)
        assert sizes.max() - sizes.min() <= 1
    again = deal_folds(patients, with_region, present, 4, np.random.default_rng(1))
    other = deal_folds(patients, with_region, present, 4, np.random.default_rng(2))
    assert again == fold_of
    assert other != fold_of


def test_each_net_learns_from_the_other_folds_alone(data, monkeypatch):
    seen: list[set[int]] = []

    def remember(images, shares, epochs, seed, tick):
        seen.append({mark_of(image) for image in images})
        assert len(seen[-1]) == len(images), "the second films have no region"
        return build_net()

    monkeypatch.setattr(teachers, "train_net", remember)
    result = cross_fit(data, TEACHABLE, TeacherSettings(folds=4, size=16))
    assert len(result.nets) == 4
    assert set(result.fold_of) == {f"patient{number}" for number in range(1, 10)}
    for fold, marks in enumerate(seen):
        expected = {n for n in range(1, 10) if result.fold_of[f"patient{n}"] != fold}
        assert marks == expected
    with pytest.raises(KeyError):
        result.out_of_fold(data, data.indices("val")[:1])


def test_patients_with_a_region_are_spread_over_the_folds(data, monkeypatch):
    monkeypatch.setattr(teachers, "train_net", lambda *rest: build_net())
    few = keep_region_cases(data, 3, seed=1)
    marked = {data.patient_ids[index] for index in marked_images(few, TEACHABLE, "train")}
    assert len(marked) == 3
    for seed in range(6):
        # clinicians' regions count, whichever others are in force
        result = cross_fit(
            few.with_regions("pseudo"), TEACHABLE, TeacherSettings(size=16, seed=seed)
        )
        assert {result.fold_of[patient] for patient in marked} == {0, 1, 2}


def test_a_net_of_other_settings_or_data_is_not_taken(data, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(teachers, "train_net", lambda *rest: trained.append(1) or build_net())
    files = [tmp_path / f"{fold}.safetensors" for fold in range(2)]

    def fit(of: PreparedData, **changed: int) -> int:
        trained.clear()
        settings = TeacherSettings(**{"folds": 2, "size": 16, **changed})
        cross_fit(of, TEACHABLE, settings, files=files)
        return len(trained)

    assert fit(data) == 2
    assert fit(data) == 0
    assert fit(data, epochs=7) == 2
    assert fit(data, seed=1) == 2
    other = dataclasses.replace(data, fingerprint="0" * 64)
    assert fit(other, seed=1) == 2
    assert fit(other, seed=1) == 0


class Marked(torch.nn.Module):
    """A net that says its number everywhere."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, films):
        return torch.full_like(films, torch.logit(torch.tensor((self.number + 1) / 10)).item())


def test_an_image_is_asked_of_the_net_of_its_patients_fold(data, monkeypatch):
    numbers = iter(range(3))
    monkeypatch.setattr(teachers, "train_net", lambda *rest: Marked(next(numbers)))
    result = cross_fit(data, TEACHABLE, TeacherSettings(size=16))
    train = data.indices("train")
    drawn = result.out_of_fold(data, train)
    assert drawn.shape == (18, 16, 16)
    for index, map_ in zip(train, drawn, strict=True):
        fold = result.fold_of[data.patient_ids[index]]
        np.testing.assert_allclose(map_, (fold + 1) / 10, rtol=1e-5)


def test_a_net_learns_where_squares_are():
    images, shares = squares(24)
    net = train_net(images, shares, 25, 0, lambda epoch: None)
    fresh, truth = squares(8, seed=1)
    drawn, true = probabilities(net, fresh) >= 0.5, truth > 0
    dice = 2 * (drawn & true).sum() / (drawn.sum() + true.sum())
    assert dice > 0.8
    untrained = probabilities(build_net().eval(), fresh) >= 0.5
    assert 2 * (untrained & true).sum() / (untrained.sum() + true.sum()) < 0.5


def test_the_seed_fixes_a_net_and_nothing_else_does():
    images, shares = squares(6)

    def trained(seed: int) -> dict[str, torch.Tensor]:
        return train_net(images, shares, 2, seed, lambda epoch: None).state_dict()

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = trained(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, other = trained(7), trained(8)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_the_loss_is_plain_dice_plus_cross_entropy():
    generator = torch.Generator().manual_seed(4)
    logits, y = torch.randn(3, 5, 7, generator=generator), torch.rand(3, 5, 7, generator=generator)
    total = 0.0
    for one, truth in zip(logits, y, strict=True):
        p = 1 / (1 + np.exp(-one.double().numpy()))
        t = truth.double().numpy()
        dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
        total += dice - (t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert float(segmentation_loss(logits, y)) == pytest.approx(total / 3, rel=1e-5)


def test_images_are_averaged_over_areas(data):
    small = small_images(data, np.array([3, 0]), SIZE // 2)
    expected = data.pixels[[3, 0]].reshape(2, SIZE // 2, 2, SIZE // 2, 2).mean(axis=(2, 4))
    assert small.dtype == np.uint8
    assert np.abs(small - expected).max() <= 0.5


def test_which_images_teach_and_which_are_asked(data):
    marked, present = (
        marked_images(data, TEACHABLE, "train"),
        present_images(data, TEACHABLE, "train"),
    )
    assert len(marked) == 9
    assert len(present) == 17
    assert set(marked) < set(present)
    assert why_untaught(data, TEACHABLE, 9) is None
    assert why_untaught(data, TEACHABLE, 10) is not None
    assert "training patients with a region: 2, for 3" in str(why_untaught(data, RARE, 3))


def test_a_net_comes_back_from_its_file(data, tmp_path):
    net = build_net().eval()
    description = describe(data, TEACHABLE, 1, TeacherSettings(size=16))
    path = tmp_path / "net.safetensors"
    save_net(net, path, description)
    loaded, found = load_net(path)
    assert found == description
    images = small_images(data, data.indices("val"), 16)
    np.testing.assert_array_equal(probabilities(loaded, images), probabilities(net, images))
    with pytest.raises(CheckpointError, match="no such file"):
        load_net(tmp_path / "none.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="or damaged"):
        load_net(path)
    save_net(net, path, {**description, "architecture": {"net": "other"}})
    with pytest.raises(CheckpointError, match="architecture is not what this version reads"):
        load_net(path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"folds": 1}, "folds 1"),
        ({"epochs": 0}, "epochs 0"),
        ({"size": 100}, "size 100: choose a multiple of 8"),
        ({"size": 8}, "size 8"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        TeacherSettings(**settings)
