"""What a run was given to learn from: labels, regions, texts."""

from pathlib import Path
from typing import Any

import numpy as np

from dwarf_cxr.config import ReportAttentionSettings, RunConfig, load_config
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import DwarfError
from dwarf_cxr.methods import METHODS
from dwarf_cxr.training.few_shot import supervising


def supervision_block(config: RunConfig | None, data: PreparedData) -> dict[str, Any]:
    """The block `supervision` of metrics.json.

    Args:
        config: of the run; None for a bare model.
        data: that the run was trained on; of other data only a `reason` is said.

    Returns:
        Shares of the training split, of the run's findings, or `reason`. What an initial model was
        given before is named in `started_from` and not counted, but for the detector of
        `report-attention`, which is part of it.
    """
    if config is None:
        return {"reason": "a bare model folder does not say what it was trained on"}
    if data.fingerprint != config.data_fingerprint:
        return {"reason": "not evaluated on the data that it was trained on"}
    if isinstance(config.settings.model, ReportAttentionSettings):
        return _of_reports(config, data)
    trained = _of_training(config, data)
    return {**trained, "started_from": config.init}


def _of_training(config: RunConfig, data: PreparedData) -> dict[str, Any]:
    objective = config.settings.objective
    chosen = data.restrict(config.findings)
    train = chosen.indices("train")
    labels = chosen.labels[train]
    nothing = {
        "films": len(train),
        "labels": 0.0,
        "absent_labels": 0.0,
        "regions": 0.0,
        "regions_of": objective.regions,
        "text": 0,
    }
    if any(one.zero_shot for one in METHODS if one.name == config.method):
        return nothing | {"films": 0}
    found: dict[str, Any] = dict(nothing)
    if objective.seg_weight < 1 and objective.label_weight > 0:
        found["labels"] = _share((~np.isnan(labels)).sum(), labels.size)
    elif objective.detection_weight > 0:
        # a present finding teaches a detector by its boxes alone
        found["absent_labels"] = _share((labels == 0).sum(), labels.size)
    if objective.supervises_maps:
        marked = supervising(chosen, objective, config.seed).has_region()[train] & (labels == 1)
        found["regions"] = _share(marked.sum(), (labels == 1).sum())
    if objective.contrastive_weight > 0:
        found["text"] = sum(chosen.texts[index] is not None for index in train)
    return found


def _of_reports(config: RunConfig, data: PreparedData) -> dict[str, Any]:
    """The reports, and all that the detector was given."""
    detector = _detector(config, data)
    if "reason" in detector:
        return detector
    try:
        folders = [Path(folder) for folder in config.reports or (config.data,)]
        reported = [PreparedData.open(folder) for folder in folders]
    except DwarfError as fault:
        return {"reason": f"the reports cannot be read ({fault})"}
    texts = sum(bool(one.texts[index]) for one in reported for index in one.indices("train"))
    return {**detector, "films": texts, "text": texts, "started_from": config.init}


def _detector(config: RunConfig, data: PreparedData) -> dict[str, Any]:
    file = Path(config.init or "") / "config.yaml"
    try:
        own = load_config(file)
    except DwarfError as fault:
        return {"reason": f"what the detector was given is not known ({fault})"}
    if own.data_fingerprint != data.fingerprint:
        return {"reason": "the detector was trained on other data"}
    return _of_training(own, data)


def _share(part: int | np.integer, whole: int | np.integer) -> float:
    return float(part / whole) if whole else 0.0
