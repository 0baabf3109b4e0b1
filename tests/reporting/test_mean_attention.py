import dataclasses
import shutil

import numpy as np
import pytest

from dwarf_cxr.evaluation.mean_maps import MeanMaps, write_mean_maps
from dwarf_cxr.reporting.mean_attention import FILE, mean_map_picture, mean_maps_of
from dwarf_cxr.reporting.page import run_page
from dwarf_cxr.reporting.runs import read_runs
from tests.reporting.made import FINDINGS


@pytest.fixture
def run(made_runs, tmp_path):
    return shutil.copytree(made_runs[0], tmp_path / "run")


def means(counts=(5, 2, 7)) -> MeanMaps:
    rng = np.random.default_rng(8)
    maps = rng.random((3, 4, 4)).astype(np.float32)
    maps[np.array(counts) < 3] = np.nan
    films = rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)
    return MeanMaps(FINDINGS, np.array(counts), maps, films)


def test_a_panel_for_each_finding_with_enough_films(run):
    write_mean_maps(means(), run / "eval-test" / FILE)
    (shown,) = mean_maps_of(read_runs([run], "test"))
    assert [panel.title for panel in shown.panels] == [FINDINGS[0], FINDINGS[2]]
    assert [panel.lines[0] for panel in shown.panels] == ["5 films", "7 films"]
    assert shown.left_out == f"Fewer than 3 such films: {FINDINGS[1]} (2)."


def test_colours_are_spread_over_the_range_that_all_findings_share(run):
    shown = means((5, 2, 7))
    shown.maps[0], shown.maps[2] = 0.3, 0.5
    shown.maps[2, 1, 1] = 0.6
    write_mean_maps(shown, run / "eval-test" / FILE)
    (made,) = mean_maps_of(read_runs([run], "test"))
    assert made.scale == ("0.30", "0.60")
    said = [panel.lines[1] for panel in made.panels]
    assert said == ["values 0.30 to 0.30", "values 0.50 to 0.60"]


def test_the_brightest_place_of_a_picture_is_the_highest_of_the_map():
    grey = np.full((3, 64, 64), 90, dtype=np.uint8)
    map_ = np.full((3, 4, 4), 0.41, dtype=np.float32)
    map_[1, 2, 3] = 0.44
    chosen = dataclasses.replace(means(), maps=map_, films=grey)
    picture = mean_map_picture(chosen, 1, 0.41, 0.44, side=80)
    place = np.unravel_index(picture.sum(axis=-1).argmax(), (80, 80))
    assert place[0] // 20 == 2
    assert place[1] // 20 == 3
    nearly_flat = mean_map_picture(chosen, 1, 0.41, 0.4101, side=80)
    assert np.array_equal(nearly_flat[0, 0], picture[0, 0])


def test_a_page_shows_them_and_does_without_in_older_evaluations(run):
    write_mean_maps(means(), run / "eval-test" / FILE)
    text = run_page(run).read_text(encoding="utf-8")
    assert "Mean map of run for Nodule over 7 films" in text
    (run / "eval-test" / FILE).unlink()
    assert "mean-maps" not in run_page(run).read_text(encoding="utf-8")
