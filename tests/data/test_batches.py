import dataclasses
import time

import cv2
import numpy as np
import pytest
import torch

from dwarf_cxr.data.batches import RegionTargets, load_batch
from dwarf_cxr.data.images import decode_grey, resize
from tests.tiny import FINDINGS, SIZE, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("tiny") / "data")


def test_a_batch_is_what_the_data_says_image_by_image(data):
    everything = np.arange(len(data.image_ids))
    targets = RegionTargets.of(data, everything, 16)
    chosen, findings = np.array([7, 1, 2, 7]), (2, 0)
    batch = load_batch(data, targets, chosen, findings)
    assert batch.images.shape == (4, SIZE, SIZE)
    assert batch.regions.shape == (4, 2, 16, 16)
    for row, image in enumerate(chosen):
        np.testing.assert_allclose(batch.images[row], data.pixels[image] / 255.0, atol=1e-6)
        for column, finding in enumerate(findings):
            label = data.labels[image, finding]
            regions = data.regions(image, FINDINGS[finding])
            share = data.coverage(image, FINDINGS[finding], 16)
            np.testing.assert_equal(batch.labels[row, column].item(), float(label))
            assert bool(batch.supervised[row, column]) == (label == 1 and len(regions) > 0)
            np.testing.assert_allclose(batch.regions[row, column], share, atol=0.5 / 255 + 1e-6)


def test_a_positive_without_region_and_an_unassessed_finding_are_not_supervised(data):
    targets = RegionTargets.of(data, data.indices("train"), 8)
    batch = load_batch(data, targets, np.array([1, 2, 3]), (0, 1, 2))
    assert batch.labels[0, 0] == 1  # film1: present without a region
    assert not batch.supervised[0].any()
    assert torch.isnan(batch.labels[1, 2])  # film2: never assessed
    assert batch.supervised[1:].tolist() == [[False, True, False], [True, True, False]]
    assert batch.regions[~batch.supervised].abs().sum() == 0
    assert bool((batch.regions[batch.supervised].sum((-1, -2)) > 0).all())


def test_only_the_images_named_have_targets(data):
    targets = RegionTargets.of(data, data.indices("train"), 8)
    others = np.concatenate([data.indices("val"), data.indices("test")])
    assert (targets.rows[others] == -1).all()
    known = (data.has_region() & (data.labels == 1))[data.indices("train")]
    assert np.array_equal(targets.rows[data.indices("train")] >= 0, known)
    assert len(targets.shares) == known.sum()
    assert targets.shares.dtype == np.uint8


def test_a_region_of_an_absent_finding_is_no_target(data):
    labels = data.labels.copy()
    image = int(np.flatnonzero(data.has_region()[:, 1])[0])
    labels[image, 1] = 0.0
    changed = data.restrict(FINDINGS)
    object.__setattr__(changed, "labels", labels)
    assert RegionTargets.of(changed, np.array([image]), 8).rows[image, 1] == -1
    labels[image, 1] = np.nan
    assert RegionTargets.of(changed, np.array([image]), 8).rows[image, 1] == -1


def test_findings_are_those_of_the_restricted_data(data):
    restricted = data.restrict(["Nodule", "Mass"])
    targets = RegionTargets.of(restricted, restricted.indices("train"), 8)
    whole = RegionTargets.of(data, data.indices("train"), 8)
    images = data.indices("train")
    ours = load_batch(restricted, targets, images, (0, 1))
    theirs = load_batch(data, whole, images, (2, 0))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


def test_without_any_region_there_is_a_batch_without_supervision(data):
    targets = RegionTargets.of(data, np.array([0]), 8)
    batch = load_batch(data, targets, np.array([0]), (0, 1, 2))
    assert targets.shares.shape == (0, 8, 8)
    assert not batch.supervised.any()


def test_a_tiny_region_is_not_an_empty_target(data, monkeypatch):
    share = np.zeros((8, 8), dtype=np.float32)
    share[3, 4] = 0.001
    monkeypatch.setattr(type(data), "coverage", lambda self, image, finding, size: share)
    targets = RegionTargets.of(data, data.indices("train"), 8)
    assert bool((targets.shares.sum((1, 2)) > 0).all())


def test_pixels_and_shares_stay_in_8_bits_until_they_are_asked_for(data):
    targets = RegionTargets.of(data, data.indices("train"), 8)
    chosen = np.array([4, 2, 9])
    batch = load_batch(data, targets, chosen, (0, 2))
    assert batch.pixels.dtype == batch.shares.dtype == torch.uint8
    np.testing.assert_array_equal(batch.pixels, data.pixels[chosen])
    # bit for bit the quotient, and the 8 bits are left as they are
    np.testing.assert_array_equal(
        batch.images, data.pixels[chosen].astype(np.float32) / np.float32(255)
    )
    assert batch.pixels.max() > 1
    assert batch.regions.max() == 1


def test_a_cached_image_is_far_cheaper_than_its_decoding(data, tmp_path):
    """The promise is 1,000 times; `benchmarks/data.py` measures it, this cannot flake."""
    size, count = 224, len(data.image_ids)
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)
    path = tmp_path / "pixels-224.u8"
    pixels.tofile(path)
    cached = dataclasses.replace(
        data, pixels=np.memmap(path, np.uint8, "r", shape=(count, size, size))
    )
    targets = RegionTargets.of(cached, np.arange(count), 8)
    noise = np.random.default_rng(1).integers(0, 256, (2048, 2048), dtype=np.uint8)
    film = cv2.imencode(".png", noise)[1].tobytes()
    order = np.random.default_rng(2).permutation(count)

    def shortest(work, times):
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    reading = shortest(lambda: load_batch(cached, targets, order, (0,)), 20) / count
    decoding = shortest(lambda: resize(decode_grey(film, "film"), size), 3)
    assert decoding / reading > 100
