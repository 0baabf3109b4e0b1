"""How well a model tells, from films alone, what their reports say."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.cases import Cases, summarise
from dwarf_cxr.evaluation.pair_scores import PairScores, Tables
from dwarf_cxr.reports.parse import attribute_table

METRICS = ("auc", "ap")


def attribute_block(
    attributes: Sequence[str],
    probability: Float64[np.ndarray, "image attribute"],
    data: PreparedData,
    indices: np.ndarray,
    *,
    draws: int,
    seed: int,
) -> dict[str, Any] | None:
    """AUC and average precision of every attribute over the films `indices` that have a text.

    `probability` is of the films `indices`, in order. What a film has is what the parser reads in
    its report. None where no film has a text.
    """
    rows = np.array([row for row, index in enumerate(indices) if data.texts[index]], dtype=np.int64)
    chosen = indices[rows]
    if not len(chosen):
        return None
    labels = attribute_table([data.texts[index] for index in chosen])
    cases = Cases(
        image_ids=tuple(data.image_ids[index] for index in chosen),
        patient_ids=tuple(data.patient_ids[index] for index in chosen),
        findings=tuple(attributes),
        labels=labels,
        scores=probability[rows],
        present=np.full(labels.shape, np.nan),
        n_regions=np.zeros(labels.shape),
        maps=Tables(PairScores(*labels.shape).makers()),
    )
    each, macro = summarise(cases, METRICS, draws=draws, seed=seed)
    return {
        "films": len(chosen),
        "present": dict(zip(attributes, (labels == 1).sum(axis=0).tolist(), strict=True)),
        "attributes": {
            name: {metric: value.to_json() for metric, value in values.items()}
            for name, values in each.items()
        },
        "macro": {metric: value.to_json() for metric, value in macro.items()},
    }
