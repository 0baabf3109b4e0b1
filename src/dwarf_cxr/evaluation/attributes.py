"""How well a model tells, from films alone, what their reports say."""

from typing import Any

import numpy as np

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.cases import Cases, summarise
from dwarf_cxr.evaluation.pair_scores import PairScores, Tables
from dwarf_cxr.models.outputs import AttributeReader
from dwarf_cxr.reports.parse import attribute_table

METRICS = ("auc", "ap")
BATCH = 64
"""Images whose pixels are in memory together."""


def attribute_block(
    model: AttributeReader, data: PreparedData, indices: np.ndarray, *, draws: int, seed: int
) -> dict[str, Any] | None:
    """AUC and average precision of every attribute over the films `indices` that have a text.

    What a film has is what the parser reads in its report. None where no film has a text.
    """
    chosen = np.array([index for index in indices if data.texts[index]], dtype=np.int64)
    if not len(chosen):
        return None
    labels = attribute_table([data.texts[index] for index in chosen])
    cases = Cases(
        image_ids=tuple(data.image_ids[index] for index in chosen),
        patient_ids=tuple(data.patient_ids[index] for index in chosen),
        findings=model.attributes,
        labels=labels,
        scores=np.concatenate(
            [
                model.predict_attributes(data.pixels[chosen[start : start + BATCH]])
                for start in range(0, len(chosen), BATCH)
            ]
        ),
        present=np.full(labels.shape, np.nan),
        n_regions=np.zeros(labels.shape),
        maps=Tables(PairScores(*labels.shape).makers()),
    )
    each, macro = summarise(cases, METRICS, draws=draws, seed=seed)
    return {
        "films": len(chosen),
        "attributes": {
            name: {metric: value.to_json() for metric, value in values.items()}
            for name, values in each.items()
        },
        "macro": {metric: value.to_json() for metric, value in macro.items()},
    }
