import math

import numpy as np
import pytest

from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.mean_maps import (
    FEWEST_FILMS,
    MeanMapsSum,
    only_positive,
    read_mean_maps,
    write_mean_maps,
)

NAN = math.nan
FINDINGS = ("Mass", "Effusion", "Hernia")
LABELS = np.array(
    [[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, NAN], [0, 0, 0], [1, 0, 0], [0, 0, 1]]
)
ALONE = {0: (0, 1, 6), 1: (3,), 2: (7,)}
"""Rows of `LABELS` on which a finding is the only one present, as read by eye."""


@pytest.fixture
def films():
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (8, 10, 10), dtype=np.uint8)
    return pixels, rng.random((8, 3, 4, 5)).astype(np.float32)


def test_only_positive_by_eye():
    expected = np.zeros((8, 3), dtype=bool)
    for finding, rows in ALONE.items():
        expected[list(rows), finding] = True
    assert np.array_equal(only_positive(LABELS), expected)


def collected(pixels, maps, domain="unit"):
    sums = MeanMapsSum(FINDINGS, domain)
    for rows in (slice(0, 3), slice(3, 8)):
        sums.add(LABELS[rows], pixels[rows], maps[rows])
    return sums.mean()


def test_means_of_batches_are_means_of_all(films):
    pixels, maps = films
    means = collected(pixels, maps)
    assert means.counts.tolist() == [len(rows) for rows in ALONE.values()]
    np.testing.assert_allclose(means.maps[0], maps[list(ALONE[0]), 0].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(means.films[0], pixels[list(ALONE[0])].mean(axis=0).round())


def test_the_mean_of_too_few_films_is_not_kept(films):
    means = collected(*films)
    assert FEWEST_FILMS == 3
    assert np.isnan(means.maps[1:]).all()
    assert not means.films[1:].any()


def test_masks_that_sum_to_one_are_averaged_as_masks(films):
    pixels, raw = films
    masks = raw / raw.sum(axis=(-2, -1), keepdims=True)
    relative = masks * 20
    means = collected(pixels, relative / (1 + relative), "simplex")
    mean_mask = masks[list(ALONE[0]), 0].mean(axis=0) * 20
    np.testing.assert_allclose(means.maps[0], mean_mask / (1 + mean_mask), rtol=1e-5)


def test_files_hold_what_was_written(films, tmp_path):
    means = collected(*films)
    write_mean_maps(means, tmp_path / "mean-maps.npz")
    again = read_mean_maps(tmp_path / "mean-maps.npz")
    assert again is not None
    assert again.findings == means.findings
    for name in ("counts", "maps", "films"):
        np.testing.assert_array_equal(getattr(again, name), getattr(means, name))


def test_a_damaged_file_is_named_and_an_absent_one_is_none(tmp_path):
    path = tmp_path / "mean-maps.npz"
    assert read_mean_maps(path) is None
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"mean-maps.npz: damaged .* evaluate the run again"):
        read_mean_maps(path)
    with pytest.raises(DataError, match="no film was added"):
        MeanMapsSum(FINDINGS, "unit").mean()
