import math

import pytest
import torch

from dwarf_cxr.config import TrainingSettings
from dwarf_cxr.training.augmentation import Changes, apply_changes, draw_changes

STILL = TrainingSettings(rotate=0, shift=0, scale=0, intensity=0)
MOVING = TrainingSettings(rotate=10, shift=0.1, scale=0.15, intensity=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(count: int, size: int) -> torch.Tensor:
    """A smooth blob per image, away from the middle: (count, size, size)."""
    place = (torch.arange(size) + 0.5) / size
    y = 0.35 + 0.3 * torch.rand(count, 1, 1, generator=generator(5))
    x = 0.35 + 0.3 * torch.rand(count, 1, 1, generator=generator(6))
    return torch.exp(-((place[:, None] - y) ** 2 + (place - x) ** 2) / 0.02)


def centres(planes: torch.Tensor) -> torch.Tensor:
    """Centre of mass (y, x) as a share of the side: (count, 2)."""
    size = planes.shape[-1]
    place = (torch.arange(size) + 0.5) / size
    mass = planes.sum((-1, -2))
    return torch.stack([planes.sum(-1) @ place / mass, planes.sum(-2) @ place / mass], dim=-1)


def test_a_mask_painted_as_the_image_moves_as_the_image_does():
    images = blobs(6, 64)
    changes = draw_changes(MOVING, 6, generator())
    moved, regions = apply_changes(images, images[:, None].repeat(1, 2, 1, 1), changes)
    assert (moved - images).abs().max() > 0.2
    torch.testing.assert_close(regions[:, 0], moved, rtol=0, atol=1e-5)
    torch.testing.assert_close(regions[:, 1], moved, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [MOVING, MOVING.model_copy(update={"flip": True})])
def test_a_coarser_mask_moves_to_the_same_place(settings):
    changes = draw_changes(settings, 6, generator(1))
    images, regions = apply_changes(blobs(6, 128), blobs(6, 32)[:, None], changes)
    moved_by = (centres(images) - centres(blobs(6, 128))).abs()
    assert moved_by.max() > 0.05
    torch.testing.assert_close(centres(images), centres(regions[:, 0]), rtol=0, atol=5e-3)


def test_zero_settings_change_nothing():
    images, regions = torch.rand(3, 17, 17, generator=generator()), torch.rand(3, 2, 8, 8)
    changed = apply_changes(images, regions, draw_changes(STILL, 3, generator()))
    for before, after in zip((images, regions), changed, strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


def test_there_is_no_mirror_by_default():
    assert TrainingSettings().flip is False
    affine = draw_changes(TrainingSettings(), 500, generator()).affine
    assert bool((torch.linalg.det(affine[:, :, :2]) > 0).all())


def test_mirrors_if_wanted_are_half_of_the_images_and_exact():
    flipping = STILL.model_copy(update={"flip": True})
    changes = draw_changes(flipping, 400, generator())
    mirrored = torch.linalg.det(changes.affine[:, :, :2]) < 0
    assert 150 < int(mirrored.sum()) < 250
    images = torch.rand(400, 6, 6, generator=generator(1))
    moved, regions = apply_changes(images, images[:, None], changes)
    expected = torch.where(mirrored[:, None, None], images.flip(-1), images)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(regions[:, 0], expected, rtol=0, atol=1e-5)


def test_a_shift_is_a_share_of_the_side():
    settings = STILL.model_copy(update={"shift": 0.25})
    changes = draw_changes(settings, 300, generator())
    assert changes.affine[:, :, 2].abs().max() <= 0.5
    assert changes.affine[:, :, 2].abs().max() > 0.45
    film = torch.zeros(1, 8, 8)
    film[0, 4, 4] = 1.0
    one = Changes(torch.tensor([[[1.0, 0, 0.5], [0, 1.0, -0.25]]]), torch.ones(1), torch.zeros(1))
    moved, _ = apply_changes(film, torch.zeros(1, 0, 2, 2), one)
    # sampled a quarter of the side to the right and an eighth above: moves left and down
    assert moved[0, 5, 2].item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("setting", "limit"), [("rotate", 10.0), ("scale", 0.2)])
def test_rotation_and_scale_stay_in_their_limits_and_use_them(setting, limit):
    changes = draw_changes(STILL.model_copy(update={setting: limit}), 500, generator())
    affine = changes.affine
    zoom = torch.linalg.det(affine[:, :, :2]).sqrt()
    angle = torch.rad2deg(torch.atan2(affine[:, 1, 0], affine[:, 0, 0]))
    used = {"rotate": angle, "scale": zoom - 1}[setting]
    other = {"rotate": zoom - 1, "scale": angle}[setting]
    assert limit * 0.95 < used.max() <= limit + 1e-4
    assert -limit - 1e-4 <= used.min() < -limit * 0.95
    assert other.abs().max() < 1e-4
    assert bool((affine[:, :, 2] == 0).all())


def test_a_quarter_turn_keeps_shapes_and_direction():
    film = torch.zeros(1, 5, 5)
    film[0, 0, 2] = 1.0
    angle = math.pi / 2
    affine = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
    turn = Changes(torch.tensor([affine]), torch.ones(1), torch.zeros(1))
    moved, regions = apply_changes(film, film[:, None], turn)
    assert moved.argmax().item() == regions.argmax().item() == 2 * 5 + 0
    assert moved.max().item() == pytest.approx(1.0, abs=1e-5)


def test_outside_the_film_there_is_black_and_no_region():
    away = Changes(torch.tensor([[[1.0, 0, 3.0], [0, 1.0, 0]]]), torch.ones(1), torch.zeros(1))
    moved, regions = apply_changes(torch.ones(1, 6, 6), torch.ones(1, 1, 3, 3), away)
    assert moved.max() == regions.max() == 0


def test_intensity_changes_the_film_within_its_range_but_not_the_regions():
    settings = STILL.model_copy(update={"intensity": 0.4})
    changes = draw_changes(settings, 300, generator())
    for values, centre, limit in ((changes.contrast, 1.0, 0.4), (changes.brightness, 0.0, 0.2)):
        assert limit * 0.9 < (values - centre).abs().max() <= limit + 1e-6
    images = torch.rand(300, 4, 4, generator=generator(2))
    regions = torch.rand(300, 1, 4, 4, generator=generator(3))
    moved, kept = apply_changes(images, regions, changes)
    assert 0 <= moved.min() <= moved.max() <= 1
    torch.testing.assert_close(kept, regions, rtol=0, atol=1e-5)
    image, contrast, brightness = images[0], changes.contrast[0], changes.brightness[0]
    expected = ((image - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    torch.testing.assert_close(moved[0], expected, rtol=0, atol=1e-5)


def test_the_generator_alone_decides_and_parts_are_parts():
    torch.manual_seed(1)
    first = draw_changes(TrainingSettings(flip=True), 7, generator(9))
    torch.manual_seed(2)
    again, other = (draw_changes(TrainingSettings(flip=True), 7, generator(s)) for s in (9, 10))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.affine, other.affine)
    part = first.rows(slice(2, 5))
    assert torch.equal(part.affine, first.affine[2:5])
    assert torch.equal(part.contrast, first.contrast[2:5])
