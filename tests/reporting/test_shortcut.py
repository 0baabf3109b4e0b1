"""The figure that shows whether maps follow the film: its rules, its numbers, its picture."""

import io
import itertools
import shutil

import numpy as np
import pytest
from PIL import Image

from dwarf_cxr.errors import ConfigError, DataError, DwarfError
from dwarf_cxr.reporting import shortcut
from dwarf_cxr.reporting.examples import ask
from dwarf_cxr.reporting.runs import read_runs
from dwarf_cxr.reporting.shortcut import (
    drawn_films,
    mean_pairwise_correlation,
    most_drawn,
    shortcut_figure,
    spread,
)
from tests.reporting.made import FINDINGS, ODD, write_data, write_run


@pytest.mark.parametrize("seed", range(3))
def test_correlation_is_the_mean_over_pairs(seed):
    rng = np.random.default_rng(seed)
    maps = rng.random((6, 3, 5)) + rng.random((3, 5))
    pairs = [
        np.corrcoef(maps[a].ravel(), maps[b].ravel())[0, 1]
        for a, b in itertools.combinations(range(6), 2)
    ]
    assert mean_pairwise_correlation(maps) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_correlation_of_one_shape_and_of_none():
    rng = np.random.default_rng(7)
    shape = rng.random((4, 3)).astype(np.float32)
    same = np.stack([shape, shape / 2, shape / 4 + 0.5])
    flat = np.full((2, 4, 3), 0.3, np.float32)
    assert mean_pairwise_correlation(same) == pytest.approx(1, abs=1e-6)
    assert mean_pairwise_correlation(np.concatenate([same, flat])) == pytest.approx(1, abs=1e-6)
    assert mean_pairwise_correlation(np.stack([shape, 1 - shape])) == pytest.approx(-1, abs=1e-6)
    assert mean_pairwise_correlation(np.concatenate([same[:1], flat])) is None
    assert mean_pairwise_correlation(same[:0]) is None


def test_films_are_spread_from_left_to_right(made_data, made_runs):
    (run,) = read_runs(made_runs[:1], "test")
    rows = drawn_films(run.cases, ODD)
    assert len(rows) == 6
    indices = [made_data.image_ids.index(run.cases.image_ids[row]) for row in rows]
    left = {}
    for index in indices:
        (region,) = made_data.regions(index, ODD)
        left[index] = region.shape.x1
    ordered = sorted(indices, key=left.__getitem__)
    assert spread(made_data, indices[::-1], ODD, 2) == [ordered[0], ordered[-1]]
    assert spread(made_data, indices, ODD, 3) == [ordered[0], ordered[2], ordered[-1]]
    assert spread(made_data, indices, ODD, 1) == [ordered[2]]
    assert spread(made_data, indices, ODD, 9) == ordered


def test_the_finding_with_most_regions_is_shown(made_runs):
    (run,) = read_runs(made_runs[:1], "test")
    counts = {name: len(drawn_films(run.cases, name)) for name in FINDINGS}
    assert counts["Nodule"] == 0
    assert most_drawn(run.cases, FINDINGS) == max(counts, key=counts.__getitem__)
    assert most_drawn(run.cases, ["Nodule", "Effusion"]) == "Effusion"


def drawn_words(monkeypatch, *arguments, **settings):
    """The words of a figure, in the order in which they are written."""
    written = []
    write = shortcut._Page.write

    def recording(page, x, y, words, size, **style):
        written.append(words)
        write(page, x, y, words, size, **style)

    monkeypatch.setattr(shortcut._Page, "write", recording)
    shortcut_figure(*arguments, **settings)
    return written


def test_the_numbers_beside_a_row_are_those_of_its_run(monkeypatch, made_data, made_runs, tmp_path):
    named = [("one", made_runs[0]), ("two", made_runs[1])]
    words = drawn_words(
        monkeypatch, named, made_data.folder, tmp_path / "a.png", finding="Effusion", films=3
    )
    assert "Do the maps of Effusion follow the film?" in words
    for name, run in zip(("one", "two"), read_runs(made_runs[:2], "test"), strict=True):
        beside = words[words.index(name) + 1]
        for metric in ("dice", "dice_lost_shuffled"):
            entry = run.metrics["findings"]["Effusion"][metric]
            shown = [f"{entry[key]:.3f}".replace("-", "−") for key in ("value", "low", "high")]
            assert all(number in beside for number in shown)
        rows = drawn_films(run.cases, "Effusion")
        maps = ask(run, made_data, [run.cases.image_ids[row] for row in rows]).outputs.maps
        alike = mean_pairwise_correlation(maps[:, run.cases.findings.index("Effusion")])
        assert f"{alike:.2f}".replace("-", "−") in beside
        films = words[words.index("Film and true region") + 2 :][:3]
        column = run.cases.findings.index("Effusion")
        own = [run.cases.maps["dice"][run.cases.image_ids.index(film), column] for film in films]
        under = words[words.index(name) + 2 :][:3]
        assert under == [f"Dice {dice:.2f}" for dice in own]


def test_nothing_is_cut_off(made_data, made_runs, tmp_path):
    """White margins on every side, whatever the number of runs and films and the names' length."""
    long = "a run with a name that is far too long for one line, and a " + "w" * 60
    for number, (runs, films) in enumerate(
        [([(long, made_runs[0])], 1), ([("x", run) for run in made_runs], 7)]
    ):
        out = shortcut_figure(
            runs, made_data.folder, tmp_path / f"{number}.png", finding=ODD, films=films
        )
        pixels = np.asarray(Image.open(io.BytesIO(out.read_bytes())).convert("L"))
        for edge in (pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:]):
            assert (edge == 255).all()
        assert (pixels < 128).any()


def test_maps_of_another_model_make_another_picture_and_the_same_model_the_same(
    made_data, made_runs, tmp_path
):
    one, two, again = (
        shortcut_figure([("run", run)], made_data.folder, tmp_path / f"{place}.png", films=2)
        for place, run in enumerate((made_runs[0], made_runs[1], made_runs[0]))
    )
    assert one.read_bytes() == again.read_bytes()
    assert one.read_bytes() != two.read_bytes()


def test_without_a_threshold_the_reason_stands_beside_the_maps(monkeypatch, made_data, tmp_path):
    run = write_run(tmp_path / "bare", made_data, threshold=None)
    words = drawn_words(monkeypatch, [("bare", run)], made_data.folder, tmp_path / "a.png", films=2)
    assert words[words.index("bare") + 1].count("no map threshold") == 2
    assert "Dice undefined" in words


def test_what_cannot_be_shown_is_refused(made_data, made_runs, tmp_path):
    runs, out = [("one", made_runs[0])], tmp_path / "a.png"
    with pytest.raises(ConfigError, match="ask for at least one"):
        shortcut_figure(runs, made_data.folder, out, films=0)
    with pytest.raises(ConfigError, match="unknown finding 'Flu'"):
        shortcut_figure(runs, made_data.folder, out, finding="Flu")
    with pytest.raises(DataError, match="no film of split 'test' has Nodule with a region"):
        shortcut_figure(runs, made_data.folder, out, finding="Nodule")
    with pytest.raises(DataError, match="holds other data"):
        shortcut_figure(runs, write_data(tmp_path / "other", seed=9).folder, out)
    with pytest.raises(DwarfError, match="no run is given"):
        shortcut_figure([], made_data.folder, out)
    light = shutil.copytree(made_runs[0], tmp_path / "light")
    shutil.rmtree(light / "model")
    with pytest.raises(DwarfError, match="no model there"):
        shortcut_figure([("light", light)], made_data.folder, out)
    assert not out.exists()


def test_runs_without_a_common_finding_are_refused(made_data, tmp_path):
    one = write_run(tmp_path / "one", made_data, findings=FINDINGS[:1])
    two = write_run(tmp_path / "two", made_data, findings=FINDINGS[1:])
    with pytest.raises(ConfigError, match="no finding in common"):
        shortcut_figure([("a", one), ("b", two)], made_data.folder, tmp_path / "a.png")
