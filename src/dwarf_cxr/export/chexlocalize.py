"""Maps in CheXlocalize's own layout, so that its public scripts can score them.

For a split, two things are written:

- `maps_SPLIT/ID_NAME_map.pkl`, one for each view and finding: a pickled dict of
  `map`, a float32 tensor (1, 1, h, w), the map on the model's own grid, in [0, 1];
  `prob`, the probability; `task`, the finding by CheXlocalize's name; `gt`, 1 or 0, None where it
  was never assessed; `cxr_img`, a float32 tensor (3, size, size) in [0, 1], the film as the model
  saw it; `cxr_dims`, (width, height) of the original image.
- `segmentations_SPLIT.json`: ID to each of the ten names to {size: [height, width], counts}, run
  lengths of the pixels where the map, bilinear at the original size, reaches the model's own
  threshold, which was fitted on validation. All zero for a finding that the model does not know or
  has no threshold for. Probabilities play no part.

CheXlocalize's heatmap_to_segmentation.py makes other segmentations from the pickles: it enlarges a
map to `cxr_dims` (bilinear, align_corners=False), stretches it to [0, 1] by its own minimum and
maximum, so that its level is lost, and cuts it by Otsu's method or at a threshold of each finding.
Its eval.py takes either file for the IoU and the folder of pickles for the hit rate.

Pickles are what those scripts demand. They are only written: nothing here ever opens one.

Source: github.com/rajpurkarlab/cheXlocalize, README, heatmap_to_segmentation.py and eval.py.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8

from dwarf_cxr.data.chexlocalize import TASKS, original_sizes
from dwarf_cxr.data.chexpert import view_of_id
from dwarf_cxr.data.geometry import Frame, compress_counts, encode_mask
from dwarf_cxr.data.records import Mask
from dwarf_cxr.data.rows import listed
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import CheckpointError, DataError
from dwarf_cxr.evaluation.evaluate import refuse_seen_patients
from dwarf_cxr.evaluation.maps import reaches
from dwarf_cxr.evaluation.zero_shot import judge_for
from dwarf_cxr.files import atomic_folder, sync_folder, write_json
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.progress import Report

BATCH = 16
"""Images predicted together."""

PICKLE_PROTOCOL = 4
"""Python 3.8, which the scripts are made for, reads it."""


def export_maps(
    run: Path,
    data: Path,
    out: Path,
    *,
    split: str = "test",
    ground_truth: Path | None = None,
    progress: Report | None = None,
) -> list[str]:
    """Write the maps of a run or bare model on a split of CheXlocalize under `out`.

    An earlier export of the split is replaced once all new maps are written. Its segmentations go
    first and the new ones come last: a call that is killed in between leaves maps without
    segmentations, never the maps of one model beside the segmentations of another.

    Args:
        ground_truth: `gt_segmentations_SPLIT.json`. The originals' sizes are taken from it, which
            is needed where the prepared images were smaller than the originals; and views of it
            that get no map are counted.

    Returns:
        Lines for a person: what was written, and what the scripts will stumble over.

    Raises:
        CheckpointError: no model, no card, another image size, or maps that are not numbers.
        DataError: the data are not CheXlocalize's, the split is empty, none of the ten findings is
            known, the model has seen the patients, or the ground truth is malformed.
    """
    loaded = load_model(run)
    prepared = PreparedData.open(data)
    model = judge_for(loaded, prepared)
    card = model.card
    if card is None:
        raise CheckpointError(f"{run}: the model has no card (thresholds); it cannot be exported")
    if model.image_size != prepared.size:
        raise CheckpointError(
            f"the model wants images of {model.image_size} px, {data} has {prepared.size} px; "
            f"prepare the data with --size {model.image_size}"
        )
    known = tuple(finding for finding in TASKS if finding in model.findings)
    if not known:
        raise DataError(
            f"{run}: knows none of CheXlocalize's findings ({', '.join(TASKS)}), only "
            f"{', '.join(model.findings)}"
        )
    indices = prepared.indices(split)
    _refuse_other_data(prepared, indices, split)
    refuse_seen_patients(card, prepared, split)
    originals = {} if ground_truth is None else original_sizes(ground_truth)
    thresholds = {finding: card.map_thresholds.get(finding) for finding in known}
    segmentations: dict[str, dict[str, Any]] = {}
    flat = 0
    segmentations_file = out / f"segmentations_{split}.json"
    with atomic_folder(out / f"maps_{split}") as folder:
        for start in range(0, len(indices), BATCH):
            chunk = indices[start : start + BATCH]
            if progress is not None:
                progress(f"predicting {start} of {len(indices)} views", start, len(indices))
            outputs = model.predict(prepared.pixels[chunk], known)
            if not (np.isfinite(outputs.maps).all() and np.isfinite(outputs.probability).all()):
                raise CheckpointError(f"{run}: maps or scores that are not numbers; train it anew")
            flat += int((np.ptp(outputs.maps, axis=(2, 3)) == 0).sum())
            for row, index in enumerate(chunk):
                image_id = prepared.image_ids[index]
                own = int(prepared.widths[index]), int(prepared.heights[index])
                frame = originals.get(image_id, own)
                for column, finding in enumerate(known):
                    content = _pickled(
                        finding,
                        outputs.maps[row, column],
                        float(outputs.probability[row, column]),
                        _label(prepared, int(index), finding),
                        prepared.pixels[index],
                        frame,
                    )
                    (folder / f"{image_id}_{TASKS[finding]}_map.pkl").write_bytes(content)
                segmentations[image_id] = _segmented(outputs.maps[row], thresholds, frame)
        segmentations_file.unlink(missing_ok=True)
        sync_folder(out)
    write_json(segmentations_file, segmentations)
    return [
        f"{len(indices) * len(known)} maps of {len(indices)} views in {out / f'maps_{split}'}",
        *_warnings(thresholds, flat, sorted(originals.keys() - segmentations.keys())),
    ]


def _refuse_other_data(data: PreparedData, indices: np.ndarray, split: str) -> None:
    if not len(indices):
        present = ", ".join(sorted(set(data.splits)))
        raise DataError(f"{data.folder}: no image in split {split!r}; its splits are {present}")
    ids = [data.image_ids[index] for index in indices]
    others = [image_id for image_id in ids if view_of_id(image_id) is None]
    if others:
        raise DataError(
            f"{data.folder}: {len(others)} images are not named as CheXpert's views are "
            f"(patient00001_study1_view1_frontal): {listed(others)}; prepare CheXlocalize with "
            f"`dwarf data prepare chexlocalize`"
        )


def _label(data: PreparedData, index: int, finding: str) -> int | None:
    if finding not in data.findings:
        return None
    label = data.labels[index, data.findings.index(finding)]
    return None if np.isnan(label) else int(label)


def _pickled(
    finding: str,
    map_: Float32[np.ndarray, "h w"],
    probability: float,
    label: int | None,
    pixels: UInt8[np.ndarray, "size size"],
    frame: Frame,
) -> bytes:
    film = torch.from_numpy(pixels.astype(np.float32) / 255)
    content = {
        "map": torch.from_numpy(map_.copy())[None, None],
        "prob": probability,
        "task": TASKS[finding],
        "gt": label,
        # a view of one grey plane: three would take three times the space
        "cxr_img": film.expand(3, *film.shape),
        "cxr_dims": frame,
    }
    return pickle.dumps(content, protocol=PICKLE_PROTOCOL)


def _segmented(
    maps: Float32[np.ndarray, "finding h w"],
    thresholds: Mapping[str, float | None],
    frame: Frame,
) -> dict[str, Any]:
    """Run lengths of all ten findings; `thresholds` in the order of `maps`."""
    masks = {}
    for map_, (finding, threshold) in zip(maps, thresholds.items(), strict=True):
        if threshold is not None:
            large = cv2.resize(map_, frame, interpolation=cv2.INTER_LINEAR)
            masks[finding] = encode_mask(reaches(large, threshold))
    width, height = frame
    empty = Mask(height, width, (height * width,))
    return {
        task: {
            "size": [height, width],
            "counts": compress_counts(masks.get(finding, empty).counts),
        }
        for finding, task in TASKS.items()
    }


def _warnings(
    thresholds: Mapping[str, float | None], flat: int, without: Sequence[str]
) -> list[str]:
    """What a person should know before the scripts are run; `without` are views without maps."""
    lines = []
    unknown = [task for finding, task in TASKS.items() if finding not in thresholds]
    if unknown:
        lines.append(
            f"the model does not know {_and(unknown)}: empty in the segmentations, which IoU on "
            f"true positives leaves out; CheXlocalize's hit rate stops without maps of all ten"
        )
    unfitted = [TASKS[finding] for finding, value in thresholds.items() if value is None]
    if unfitted:
        lines.append(f"no map threshold for {_and(unfitted)}: empty in the segmentations")
    if flat:
        lines.append(f"{flat} maps are flat; CheXlocalize's stretching makes nothing of them")
    if without:
        lines.append(
            f"{len(without)} views of the ground truth get no map ({listed(without, 3)}): its IoU "
            f"takes them as empty and its hit rate stops; --lateral prepares lateral views"
        )
    return lines


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
