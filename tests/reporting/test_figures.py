import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from dwarf_cxr.reporting import figures
from dwarf_cxr.reporting.figures import (
    forest_plot,
    roc_curves,
    roc_points,
    style_of,
    training_curves,
)
from dwarf_cxr.reporting.runs import read_runs


@pytest.mark.parametrize("decimals", [1, 6])
def test_roc_points_are_those_of_scikit_learn(decimals):
    rng = np.random.default_rng(decimals)
    labels = rng.integers(0, 2, 60).astype(float)
    scores = np.round(rng.random(60), decimals)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    points = roc_points(labels, scores)
    np.testing.assert_allclose(points, np.stack([false, true], axis=1))
    area = np.trapezoid(points[:, 1], points[:, 0])
    assert area == pytest.approx(roc_auc_score(labels, scores))


def test_roc_leaves_out_what_was_never_assessed():
    labels = np.array([1.0, 0.0, np.nan, 1.0])
    scores = np.array([0.9, 0.2, 0.5, 0.1])
    np.testing.assert_allclose(roc_points(labels, scores), [[0, 0], [0, 0.5], [1, 0.5], [1, 1]])


@pytest.mark.parametrize("labels", [[1.0, 1.0], [0.0, 0.0], [np.nan, 1.0], []])
def test_roc_needs_both_kinds(labels):
    assert roc_points(np.array(labels, dtype=float), np.zeros(len(labels))) is None


def test_styles_of_many_runs_differ():
    styles = [style_of(index) for index in range(100)]
    assert len(set(styles)) == 100


def test_charts_are_svg_and_the_same_every_time(made_runs):
    runs = read_runs(made_runs, "test")
    for draw in (forest_plot, roc_curves, training_curves):
        first, second = draw(runs), draw(runs)
        assert first == second
        assert b"<svg" in first[:1000]


def test_no_history_no_training_chart(made_runs):

    runs = [dataclasses.replace(run, history=None) for run in read_runs(made_runs, "test")]
    assert training_curves(runs) is None


def with_findings(run, count):
    """`run` as if its first finding stood there `count` times under names of their own."""
    names = tuple(f"Pleural thickening {number}" for number in range(count))
    first = run.cases.findings[0]
    cases = dataclasses.replace(
        run.cases,
        findings=names,
        **{
            name: np.repeat(getattr(run.cases, name)[:, :1], count, axis=1)
            for name in ("labels", "scores", "present", "n_regions")
        },
        maps={
            name: np.repeat(table[:, :1], count, axis=1) for name, table in run.cases.maps.items()
        },
    )
    of = dict.fromkeys(names, run.metrics["findings"][first])
    return dataclasses.replace(
        run, cases=cases, metrics=run.metrics | {"findings": of, "findings_order": list(names)}
    )


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 13])
def test_no_title_of_the_roc_charts_is_cut_or_crossed(made_runs, monkeypatch, count):
    runs = [with_findings(run, count) for run in read_runs(made_runs, split="test")]
    drawn = []
    monkeypatch.setattr(figures, "svg_bytes", lambda figure: drawn.append(figure) or b"")
    roc_curves(runs)
    (figure,) = drawn
    figure.canvas.draw()
    charts = [axes for axes in figure.axes if axes.axison]
    assert len(charts) == count
    for axes in charts:
        title = axes.title.get_window_extent()
        assert title.y1 <= figure.bbox.y1
        assert title.x0 >= 0
        assert title.x1 <= figure.bbox.x1
        others = [one for one in charts if one is not axes]
        assert not any(title.overlaps(one.get_window_extent()) for one in others)
        assert not any(title.overlaps(one.get_tightbbox()) for one in others)


def test_the_train_prior_is_on_the_axis_wherever_it_lies(made_runs, monkeypatch):
    (run, *_) = read_runs(made_runs, split="test")
    prior = {"macro": {"dice": {"value": 0.99}}, "findings": {}}
    metrics = run.metrics | {"references": {"train_prior": prior}}
    drawn = []
    monkeypatch.setattr(figures, "svg_bytes", lambda figure: drawn.append(figure) or b"")
    forest_plot([dataclasses.replace(run, metrics=metrics)])
    dice = drawn[0].axes[1]
    assert dice.get_xlim()[0] < 0
    assert dice.get_xlim()[1] > 0.99
