"""HAM's localisation protocol: in how many films a map's region meets the true one well enough.

T(IoU) and T(IoR) are the shares of (film, finding) pairs whose IoU, or IoR, is at least a
threshold, as the code of Ouyang et al., "Learning Hierarchical Attention for Weakly-supervised
Chest X-Ray Abnormality Localization and Diagnosis" (HAM, IEEE TMI 2021), has them. A pair is scored
if the finding is labelled present and has a region, whatever the model's score says: nothing is
gated by the prediction. The overlaps themselves are in `maps.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dwarf_cxr.evaluation.cases import Cases, summarise
from dwarf_cxr.evaluation.maps import HAM_THRESHOLD, IOR_THRESHOLDS, IOU_THRESHOLDS
from dwarf_cxr.evaluation.pair_scores import Table, Tables

POLICIES = {
    "validation": "a pixel is marked where the map is at least the threshold that the model has "
    "from validation",
    "ham": f"a pixel is marked where the map, scaled to [0, 1] by its own extremes, is at least "
    f"{HAM_THRESHOLD:.3f}; a constant map marks nothing",
}
"""What the predicted region is."""
MEASURES = {
    "validation": {"iou": ("iou", IOU_THRESHOLDS), "ior": ("ior", IOR_THRESHOLDS)},
    "ham": {"iou": ("ham_iou", IOU_THRESHOLDS), "ior": ("ham_ior", IOR_THRESHOLDS)},
}
"""Of every policy and measure, the column of `Cases.maps` and its thresholds."""


def localisation(cases: Cases, *, draws: int, seed: int) -> dict[str, Any]:
    """The block `localisation` of metrics.json.

    POLICY.MEASURE.macro.THRESHOLD and POLICY.MEASURE.findings.NAME.THRESHOLD are the shares, with
    intervals over patients; the macro mean is over findings with a scored pair.
    """
    tables = {
        f"{column} >= {threshold}": _reached(cases.maps, column, threshold)
        for measures in MEASURES.values()
        for column, thresholds in measures.values()
        for threshold in thresholds
    }
    own = {column: _as_it_is(cases.maps, column) for column in cases.maps}
    reached = dataclasses.replace(cases, maps=Tables({**own, **tables}))
    # all at once: the draws of patients cost more than what is computed from them
    findings, macro = summarise(reached, tuple(tables), draws=draws, seed=seed)
    return {
        policy: {"policy": words}
        | {
            measure: {
                "macro": {str(one): macro[f"{column} >= {one}"].to_json() for one in thresholds},
                "findings": {
                    name: {
                        str(one): estimates[f"{column} >= {one}"].to_json() for one in thresholds
                    }
                    for name, estimates in findings.items()
                },
            }
            for measure, (column, thresholds) in MEASURES[policy].items()
        }
        for policy, words in POLICIES.items()
    }


def _as_it_is(maps: Mapping[str, Table], column: str) -> Callable[[slice], Table]:
    return lambda images: maps[column][images]


def _reached(maps: Mapping[str, Table], column: str, threshold: float) -> Callable[[slice], Table]:
    def table(images: slice) -> Table:
        values = maps[column][images]
        return np.where(np.isnan(values), np.nan, values >= threshold)

    return table
