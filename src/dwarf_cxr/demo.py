"""The main job end to end on generated films: prepare, train two methods, evaluate, compare."""

from functools import partial
from pathlib import Path

from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.sources import read_source
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.evaluation.run import evaluate_run
from dwarf_cxr.findings import CHESTX_DET_7
from dwarf_cxr.progress import Report
from dwarf_cxr.reporting.page import compare, run_page
from dwarf_cxr.training.run import start_training

METHODS = ("classifier", "dwarf")


def run_demo(out: Path, *, films: int, epochs: int, report: Report, seed: int = 0) -> Path:
    """Write data, two runs and their comparison under `out`; return the comparison's page.

    Raises:
        ConfigError: `out` holds an earlier demo.
    """
    if (out / "data").exists() or any((out / method).exists() for method in METHODS):
        raise ConfigError(f"{out}: an earlier demo is there; remove it or choose another --out")
    data = out / "data"
    source = read_source(
        "synthetic",
        None,
        out=data,
        films=films,
        seed=seed,
        progress=partial(report, "drawing films"),
    )
    prepare(
        source,
        data,
        seed=seed,
        findings=CHESTX_DET_7,
        progress=partial(report, "preparing images"),
    )
    for method in METHODS:
        report(f"training {method}", 0, 1)
        start_training(method, data, out / method, epochs=epochs, seed=seed, report=report)
        report(f"evaluating {method}", 1, 1)
        folder = out / method / "eval-test"
        for line in evaluate_run(out / method, data, out=folder, report=report):
            report(f"{method}: {line}", 1, 1)
        run_page(out / method, split="test", data=data, evaluation=folder)
    page = out / "report.html"
    compare([out / method for method in METHODS], page)
    return page
