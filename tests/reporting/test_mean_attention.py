import dataclasses
import shutil

import numpy as np
import pytest

from dwarf_cxr.evaluation.mean_maps import MeanMaps, write_mean_maps
from dwarf_cxr.reporting.mean_attention import FILE, mean_map_picture, mean_map_table
from dwarf_cxr.reporting.page import run_page
from dwarf_cxr.reporting.runs import read_runs
from tests.reporting.made import FINDINGS, write_run


@pytest.fixture
def run(made_runs, tmp_path):
    return shutil.copytree(made_runs[0], tmp_path / "run")


def means(counts=(5, 2, 7)) -> MeanMaps:
    rng = np.random.default_rng(8)
    maps = rng.random((len(counts), 4, 4)).astype(np.float32)
    maps[np.array(counts) < 3] = np.nan
    films = rng.integers(0, 256, (len(counts), 64, 64), dtype=np.uint8)
    return MeanMaps(FINDINGS[: len(counts)], np.array(counts), maps, films)


def test_a_row_for_each_finding_and_the_reason_where_films_are_too_few(run):
    write_mean_maps(means(), run / "eval-test" / FILE)
    shown = mean_map_table(read_runs([run], "test"))
    assert [finding for finding, _ in shown.rows] == list(FINDINGS)
    cells = [cell for _, (cell,) in shown.rows]
    assert [cell.panel is not None for cell in cells] == [True, False, True]
    assert [cell.panel.lines[0] for cell in (cells[0], cells[2])] == ["5 films", "7 films"]
    assert cells[1].reason == "2 films with it alone, fewer than 3"
    assert shown.missing == ()


def test_runs_stand_side_by_side_each_with_its_own_findings(made_data, run, tmp_path):
    fewer = write_run(tmp_path / "fewer", made_data, seed=4, findings=FINDINGS[::-1][:2])
    old = shutil.copytree(run, tmp_path / "old")
    (old / "eval-test" / FILE).unlink()
    write_mean_maps(means(), run / "eval-test" / FILE)
    pair = dataclasses.replace(means((9, 4)), findings=FINDINGS[::-1][:2])
    write_mean_maps(pair, fewer / "eval-test" / FILE)
    shown = mean_map_table(read_runs([run, old, fewer], "test"))
    assert [column.name for column in shown.columns] == ["run", "fewer"]
    assert shown.missing == ("old",)
    films = {
        finding: [cell.panel.lines[0] if cell.panel else cell.reason for cell in cells]
        for finding, cells in shown.rows
    }
    assert films == {
        FINDINGS[0]: ["5 films", "not evaluated"],
        FINDINGS[1]: ["2 films with it alone, fewer than 3", "4 films"],
        FINDINGS[2]: ["7 films", "9 films"],
    }


def test_colours_are_spread_over_the_range_that_all_findings_share(run):
    shown = means((5, 2, 7))
    shown.maps[0], shown.maps[2] = 0.3, 0.5
    shown.maps[2, 1, 1] = 0.6
    write_mean_maps(shown, run / "eval-test" / FILE)
    made = mean_map_table(read_runs([run], "test"))
    assert made.columns[0].scale == ("0.30", "0.60")
    said = [cell.panel.lines[1] for _, (cell,) in made.rows if cell.panel]
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
