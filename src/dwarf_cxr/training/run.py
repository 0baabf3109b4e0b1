"""From the words of a command to a training: method, overrides and data become a RunConfig."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from dwarf_cxr import __version__
from dwarf_cxr.config import RunConfig, with_overrides
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.findings import select
from dwarf_cxr.methods import Method, find_method
from dwarf_cxr.progress import Report
from dwarf_cxr.training.loop import train


def make_config(
    method: str | Method,
    data: Path,
    *,
    findings: Sequence[str] | None = None,
    epochs: int | None = None,
    seed: int = 0,
    settings_file: Path | None = None,
    assignments: Sequence[str] = (),
) -> RunConfig:
    """The configuration of a run of a method of `dwarf train`, by its name, or of another.

    Raises:
        ConfigError: unknown method, finding or setting, or settings that contradict each other.
        DataError: `data` is not a prepared data set.
    """
    chosen_method = find_method(method) if isinstance(method, str) else method
    settings = with_overrides(chosen_method.settings, settings_file, assignments)
    if epochs is not None:
        settings = with_overrides(settings, None, [f"training.epochs={epochs}"])
    prepared = PreparedData.open(data)
    chosen = prepared.findings if findings is None else findings
    return RunConfig(
        method=chosen_method.name,
        findings=select(chosen, prepared.findings, where=f"--findings on {data}"),
        data=str(data),
        data_fingerprint=prepared.fingerprint,
        seed=seed,
        settings=settings,
        versions={
            "dwarf-cxr": __version__,
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "lightning-fabric": version("lightning-fabric"),
        },
    )


def start_training(
    method: str | Method,
    data: Path,
    out: Path,
    *,
    report: Report,
    findings: Sequence[str] | None = None,
    epochs: int | None = None,
    seed: int = 0,
    settings_file: Path | None = None,
    assignments: Sequence[str] = (),
    resume: bool = False,
) -> None:
    """Train `method` on `data` into the run folder `out`.

    Raises:
        DwarfError: as `make_config` and `training.loop.train`.
    """
    config = make_config(
        method,
        data,
        findings=findings,
        epochs=epochs,
        seed=seed,
        settings_file=settings_file,
        assignments=assignments,
    )
    train(config, out, resume=resume, report=report)
