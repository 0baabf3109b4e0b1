"""A detector's own boxes on a split: boxes.csv and the block `boxes` of metrics.json."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from dwarf_cxr.data.geometry import bounding_box
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.detection.detections import Detections, Detector
from dwarf_cxr.errors import DataError
from dwarf_cxr.evaluation.boxes import BoxCases, summarise_boxes
from dwarf_cxr.evaluation.processes import ALONE, Processes
from dwarf_cxr.files import write_csv
from dwarf_cxr.progress import Report

BATCH = 64
COLUMNS = ("image_id", "finding", "x1", "y1", "x2", "y2", "score")
POLICY = (
    "the detector's own boxes, all that it keeps, against the boxes around the drawn regions; a "
    "finding counts on images where it is absent or has a region, for it is somewhere, not "
    "nowhere, where it is present without; IoU at least 0.25, 0.5, 0.75"
)


def evaluate_detections(
    model: Detector,
    parts: Mapping[str, tuple[str, ...]],
    data: PreparedData,
    indices: Int64[np.ndarray, "image"],
    path: Path,
    *,
    draws: int,
    seed: int,
    report: Report | None = None,
    processes: Processes = ALONE,
) -> dict[str, Any] | None:
    """Detect on the images `indices` of `data`, write the boxes to `path`, score them.

    Args:
        parts: of each of the data's findings, in order, the model's that it is made of; it has the
            boxes of all of them.

    Returns:
        `policy`, and estimates in `findings` and `macro` by the names of `boxes.METRICS`; None in
        all processes but the first.
    """
    mine: list[Detections] = []
    share = processes.share(len(indices), BATCH)
    for start in range(share.start, share.stop, BATCH):
        if report is not None:
            report("detecting boxes", start, len(indices))
        mine += model.detect(data.pixels[indices[start : start + BATCH]])
    every = processes.gather(mine)
    if every is None:
        return None
    found = [one for part in every for one in part]
    frames = np.stack([data.widths[indices], data.heights[indices]] * 2, axis=1)
    scales = frames / model.image_size
    own: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {
        name: [
            _of_findings(one, [model.findings.index(part) for part in members], scale)
            for one, scale in zip(found, scales, strict=True)
        ]
        for name, members in parts.items()
    }
    ids = [data.image_ids[index] for index in indices]
    write_csv(path, COLUMNS, _rows(ids, own))
    cases = [_cases_of(data, indices, name, own[name]) for name in parts]
    patients = [data.patient_ids[index] for index in indices]
    findings, macro = summarise_boxes(cases, patients, draws=draws, seed=seed)
    return {
        "policy": POLICY,
        "findings": {
            name: {metric: estimate.to_json() for metric, estimate in values.items()}
            for name, values in zip(parts, findings, strict=True)
        },
        "macro": {metric: estimate.to_json() for metric, estimate in macro.items()},
    }


def read_box_cases(
    path: Path, data: PreparedData, split: str, findings: Sequence[str]
) -> list[BoxCases]:
    """The boxes of a boxes.csv against those of the data, for each of `findings`.

    Raises:
        DataError: not such a file, or boxes of images that are not in the split.
    """
    indices = data.indices(split)
    rows_of = {data.image_ids[index]: row for row, index in enumerate(indices)}
    found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            try:
                place = line["finding"], rows_of[line["image_id"]]
                values = tuple(float(line[column]) for column in COLUMNS[2:])
            except (KeyError, TypeError, ValueError):
                raise DataError(
                    f"{path}: a line is no box of a film of split {split!r} of {data.folder}; "
                    "evaluate the run again"
                ) from None
            found.setdefault(place, []).append(values)
    cases = []
    for name in findings:
        tables = [
            np.array(found.get((name, row), []), dtype=np.float32).reshape(-1, 5)
            for row in range(len(indices))
        ]
        own = [(table[:, :4], table[:, 4]) for table in tables]
        cases.append(_cases_of(data, indices, name, own))
    return cases


def _of_findings(
    detections: Detections, columns: Sequence[int], scale: np.ndarray
) -> tuple[Float32[np.ndarray, "box 4"], Float32[np.ndarray, "box"]]:
    """Boxes in original pixels and scores, best first."""
    chosen = np.flatnonzero(np.isin(detections.findings, columns))
    chosen = chosen[np.argsort(-detections.scores[chosen], kind="stable")]
    return (detections.boxes[chosen] * scale).astype(np.float32), detections.scores[chosen]


def _cases_of(
    data: PreparedData,
    indices: np.ndarray,
    name: str,
    own: Sequence[tuple[np.ndarray, np.ndarray]],
) -> BoxCases:
    column = data.findings.index(name)
    chosen, truths = [], []
    for row, index in enumerate(indices):
        label = data.labels[index, column]
        regions = data.regions(int(index), name) if label == 1 else ()
        if label == 0 or regions:
            around = [bounding_box(region.shape) for region in regions]
            corners = [(box.x1, box.y1, box.x2, box.y2) for box in around]
            chosen.append(row)
            truths.append(np.array(corners, dtype=np.float64).reshape(-1, 4))
    return BoxCases(
        tuple(data.patient_ids[indices[row]] for row in chosen),
        tuple(own[row][0] for row in chosen),
        tuple(own[row][1] for row in chosen),
        tuple(truths),
    )


def _rows(
    ids: Sequence[str], own: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]
) -> Iterator[dict[str, str]]:
    for row, image_id in enumerate(ids):
        for name, films in own.items():
            for box, score in zip(*films[row], strict=True):
                values = [image_id, name, *(repr(float(value)) for value in (*box, score))]
                yield dict(zip(COLUMNS, values, strict=True))
