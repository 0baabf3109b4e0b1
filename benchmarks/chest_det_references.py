"""Image-blind references on ChestX-Det's official annotations; no image is needed.

    python benchmarks/chest_det_references.py --annotations DIR

DIR holds ChestX_Det_train.json and ChestX_Det_test.json, or their .gz. Test Dice at 224 px, mean
over the images with the finding, then over findings: of the map that is 1 everywhere, of the mean
training region with its threshold fitted on train, of the best set of cells of a 14×14 grid.

A polygon covers each pixel by the exact share of its area inside the outline (no pixel counts
whole for being touched), and the Dice of a set of pixels sums those shares.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from dwarf_cxr.data.chest_det import FRAME, OFFICIAL_FILES, read_annotations
from dwarf_cxr.data.geometry import coverage
from dwarf_cxr.data.records import Region
from dwarf_cxr.evaluation.maps import fit_map_threshold, score_map
from dwarf_cxr.evaluation.references import all_ones, best_grid
from dwarf_cxr.findings import CHESTX_DET_4, CHESTX_DET_7, CHESTX_DET_13

SIZE = 224
GRID = (14, 14)
SETS = (CHESTX_DET_4, CHESTX_DET_7, CHESTX_DET_13)

Regions = Mapping[str, tuple[Region, ...]]


def main() -> None:
    """Print a Markdown row per finding, then one per set of findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, required=True)
    folder = parser.parse_args().annotations
    train, test = (read_annotations(_official(folder, name)) for name in OFFICIAL_FILES)
    print("| findings | train images | test images | all ones | train prior | best grid |")
    print("|---|---|---|---|---|---|")
    rows = {finding: _row(finding, train, test) for finding in CHESTX_DET_13}
    for finding, (counts, dice) in rows.items():
        print(f"| {finding} | {counts[0]} | {counts[1]} | " + _cells(dice))
    for findings in SETS:
        mean = np.mean([rows[finding][1] for finding in findings], axis=0)
        print(f"| **{len(findings)}** | | | " + _cells(mean))


def _row(finding: str, train: Regions, test: Regions) -> tuple[tuple[int, int], np.ndarray]:
    """Images with the finding in train and test; Dice of the three references."""
    training = list(_coverages(train, finding))
    prior = np.mean(training, axis=0, dtype=np.float64).astype(np.float32)
    threshold = fit_map_threshold([prior] * len(training), training)
    dice = [
        (
            all_ones(truth).dice,
            score_map(prior, truth, threshold).dice,
            best_grid(truth, GRID).dice,
        )
        for truth in _coverages(test, finding)
    ]
    return (len(training), len(dice)), np.mean(dice, axis=0)


def _coverages(regions: Regions, finding: str) -> Iterator[Float32[np.ndarray, "size size"]]:
    for drawn in regions.values():
        chosen = [region for region in drawn if region.finding == finding]
        if chosen:
            yield coverage(chosen, FRAME, SIZE)


def _official(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"


def _cells(values: np.ndarray) -> str:
    return " | ".join(f"{value:.3f}" for value in values) + " |"


if __name__ == "__main__":
    main()
