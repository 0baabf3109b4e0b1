"""Evaluating a trained run: open, score, write, and say the outcome in a few lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dwarf_cxr.config import load_config
from dwarf_cxr.data.label_map import load_label_map
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.bootstrap import bounds
from dwarf_cxr.evaluation.cases import DICE_LOST
from dwarf_cxr.evaluation.evaluate import evaluate
from dwarf_cxr.evaluation.processes import ALONE, Processes
from dwarf_cxr.evaluation.supervision import supervision_block
from dwarf_cxr.evaluation.zero_shot import judge_for
from dwarf_cxr.models.opening import open_model
from dwarf_cxr.models.predicting import Precision
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
    label_map: Path | None = None,
    precision: Precision = "fp32",
    report: Report | None = None,
    processes: Processes = ALONE,
) -> list[str]:
    """Evaluate a run, a bare or an exported model on a split of `data`; write to `out`.

    Args:
        label_map: a YAML file laid over the package's label map.
        precision: of the network's products.
        processes: those that evaluate together (`evaluation/processes.py`).

    Returns:
        Lines for a person: what was evaluated if it is not simply the model's findings, the macro
        metrics with intervals, and the references.

    Raises:
        DwarfError: no model, no data, no shared finding, or no image in the split.
    """
    model = open_model(run)
    prepared = PreparedData.open(data)
    names = load_label_map(label_map)
    judge = judge_for(model, prepared, names, report)
    config_file = run / "config.yaml"
    config = load_config(config_file) if config_file.is_file() else None
    metrics = evaluate(
        judge,
        prepared,
        split=split,
        out=out,
        draws=draws,
        save_maps=save_maps,
        seed=None if config is None else config.seed,
        supervision=supervision_block(config, prepared),
        label_map=names,
        precision=precision,
        report=report,
        processes=processes,
    )
    return _lines(metrics)


def _lines(metrics: dict[str, Any]) -> list[str]:
    lines = _agreement_lines(metrics["protocol"])
    lines += [f"{name:<12} {_shown(metrics['macro'][name])}" for name in SHOWN]
    lines.append(f"dice lost when shuffled {_shown(metrics['macro'][DICE_LOST])}")
    if "boxes" in metrics:
        shown = ("recall_25", "recall_50", "ap_25", "ap_50")
        boxes = metrics["boxes"]["macro"]
        lines.append("boxes: " + ", ".join(f"{name} {_shown(boxes[name])}" for name in shown))
    if "attributes" in metrics:
        told = metrics["attributes"]
        lines.append(f"attributes of {told['films']} reports: auc {_shown(told['macro']['auc'])}")
    for name, metric in (("mTIoU", "t_iou"), ("mTIoR", "t_ior")):
        own, ham = metrics["macro"][metric], metrics["macro"][f"ham_{metric}"]
        lines.append(f"{name:<12} {_shown(own)}; by HAM's threshold {_shown(ham)}")
    for reference, block in metrics["references"].items():
        values = ", ".join(
            f"{shown} {_shown(block['macro'][name])}"
            for shown, name in (("dice", "dice"), ("hit_rate", "hit_rate"), ("mTIoU", "t_iou"))
            if name in block["macro"]
        )
        lines.append(f"reference {reference}: {values}")
    return lines


def _agreement_lines(protocol: dict[str, Any]) -> list[str]:
    data, trained = protocol["data"]["name"], protocol["trained_on"]["name"]
    lines = [] if data == trained else [f"trained on {trained}, evaluated on {data}"]
    if protocol["zero_shot"]:
        lines.append(f"zero-shot: thresholds and prior are those of {trained}")
    lines += shared_finding_words(protocol["shared_findings"])
    only = protocol["findings_not_evaluated"]
    for words, names in (
        ("untrained (in the data, not in the model)", only["only_in_data"]),
        ("unmatched (in the model, not in the data)", only["only_in_model"]),
    ):
        if names:
            lines.append(f"{words}: {', '.join(names)}")
    return lines


def shared_finding_words(shared: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """What each shared finding is on both sides, for those that are not simply one name."""
    lines = []
    for name, one in shared.items():
        words = []
        if one["model"] != [name]:
            largest = "largest of " if len(one["model"]) > 1 else ""
            words.append(f"the model's {largest}{', '.join(one['model'])}")
        if one["data"] != [name] or one["never_assessed"]:
            words.append(f"the data's {' or '.join(one['data'])}")
        if one["never_assessed"]:
            words.append(f"never absent, since {', '.join(one['never_assessed'])} is not assessed")
        if words:
            lines.append(f"{name}: {'; '.join(words)}")
    return lines


def _shown(entry: dict[str, Any]) -> str:
    if entry.get("value") is None:
        return f"undefined ({entry.get('reason', 'no reason given')})"
    ends = bounds(entry.get("low"), entry.get("high"))
    if ends is None:
        return f"{entry['value']:.3f} (no interval)"
    return f"{entry['value']:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
