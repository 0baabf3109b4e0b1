import dataclasses

import numpy as np
import pytest

from dwarf_cxr.reporting.examples import SIDE, choose_cases, make_gallery, true_pixels
from dwarf_cxr.reporting.runs import read_runs
from tests.reporting.made import FINDINGS


@pytest.fixture
def run(made_runs):
    return read_runs(made_runs[:1], "test")[0]


def with_dice(run, values):
    maps = {name: table.copy() for name, table in run.cases.maps.items()}
    column = np.full(len(run.cases.image_ids), np.nan)
    column[: len(values)] = values
    maps["dice"][:, 0] = column
    return dataclasses.replace(run, cases=dataclasses.replace(run.cases, maps=maps))


@pytest.mark.parametrize(
    ("values", "count", "chosen"),
    [
        ([0.3, 0.9, 0.1, 0.5, 0.7], 3, [(1, "Best"), (3, "Median"), (2, "Worst")]),
        ([0.3, 0.9, 0.1, 0.5, 0.7], 1, [(3, "Median")]),
        ([0.3, 0.9, 0.1, 0.5, 0.7], 2, [(1, "Best"), (2, "Worst")]),
        ([0.3, 0.9], 3, [(1, "Best"), (0, "Worst")]),
        ([0.3], 3, [(0, "The only")]),
        ([], 3, []),
        ([0.3, np.nan, 0.1], 2, [(0, "Best"), (2, "Worst")]),
    ],
)
def test_best_median_and_worst(run, values, count, chosen):
    cases = choose_cases(with_dice(run, values), FINDINGS[0], "dice", count)
    assert [row for row, _ in cases] == [row for row, _ in chosen]
    assert all(
        words.startswith(start) for (_, words), (_, start) in zip(cases, chosen, strict=True)
    )


def test_pictures_keep_the_films_proportions(run):
    gallery = make_gallery([run], None, 1)
    example = gallery.findings[0].examples[0]
    assert (example.width, example.height) == (420, 315)
    assert [panel.title for panel in example.panels] == ["Film and region", "Map of first"]


def test_printed_dice_is_that_of_the_case(run):
    for section in make_gallery([run], None, 3).findings[:2]:
        column = FINDINGS.index(section.finding)
        for example in section.examples:
            row = run.cases.image_ids.index(example.image_id)
            dice = run.cases.maps["dice"][row, column]
            assert example.panels[1].lines[0] == f"Dice {dice:.3f}"


@pytest.mark.parametrize("row", range(3, 19))
def test_a_region_smaller_than_a_pixel_of_the_picture_is_outlined(row):
    coverage = np.zeros((SIDE, SIDE), dtype=np.float32)
    coverage[row, 100] = 0.3
    frame = (SIDE, 97)
    truth = true_pixels(coverage, frame)
    assert truth.shape == frame[::-1]
    ((y, x),) = np.argwhere(truth)
    assert x == 100
    assert y * SIDE / 97 <= row + 1
    assert row <= (y + 1) * SIDE / 97
