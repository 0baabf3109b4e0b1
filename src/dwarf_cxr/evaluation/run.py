"""Evaluating a trained run: open, score, write, and say the outcome in a few lines."""

from pathlib import Path
from typing import Any

from dwarf_cxr.config import load_config
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.evaluate import evaluate
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.progress import Report

SHOWN = ("auc", "f1", "dice", "max_dice", "hit_rate")


def evaluate_run(
    run: Path,
    data: Path,
    *,
    split: str = "test",
    out: Path,
    draws: int = 1000,
    save_maps: bool = False,
    report: Report | None = None,
) -> list[str]:
    """Evaluate a run or a bare model on a split of `data` and write its files to `out`.

    Returns:
        Lines for a person: the macro metrics with intervals, and the references.

    Raises:
        DwarfError: no model, no data, or no image in the split.
    """
    model = load_model(run)
    prepared = PreparedData.open(data)
    config_file = run / "config.yaml"
    seed = load_config(config_file).seed if config_file.is_file() else None
    metrics = evaluate(
        model,
        prepared,
        split=split,
        out=out,
        draws=draws,
        save_maps=save_maps,
        seed=seed,
        report=report,
    )
    return _lines(metrics)


def _lines(metrics: dict[str, Any]) -> list[str]:
    lines = [f"{name:<12} {_shown(metrics['macro'][name])}" for name in SHOWN]
    for reference, block in metrics["references"].items():
        values = ", ".join(
            f"{name} {_shown(block['macro'][name])}"
            for name in ("dice", "hit_rate")
            if name in block["macro"]
        )
        lines.append(f"reference {reference}: {values}")
    return lines


def _shown(entry: dict[str, Any]) -> str:
    if entry.get("value") is None:
        return f"undefined ({entry.get('reason', 'no reason given')})"
    if entry.get("low") is None:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
