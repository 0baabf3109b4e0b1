"""DICOM results of films, as files: which kinds there are, and predicting and writing them."""

import enum
import io
import logging
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from dwarf_cxr.errors import ImageError
from dwarf_cxr.export.dicom_overlay import overlay
from dwarf_cxr.export.dicom_presentation import presentation
from dwarf_cxr.export.dicom_report import report
from dwarf_cxr.export.dicom_seg import segmentation, segmented_findings
from dwarf_cxr.export.dicom_source import read_header
from dwarf_cxr.files import write_bytes
from dwarf_cxr.prediction import FilmPrediction, predict_films
from dwarf_cxr.progress import Report

_NOT_VALID = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    OSError,
    struct.error,
)
"""What highdicom and pydicom raise on values that no valid object can have; pydicom raises an
OSError on those that it cannot write, and nothing is written to a disk there."""


class Kind(enum.StrEnum):
    """A kind of DICOM result; its file is named after it."""

    SEGMENTATION = "segmentation"
    FRACTIONAL = "segmentation-fractional"
    OVERLAY = "overlay"
    PRESENTATION = "presentation"
    REPORT = "report"


def make(header: Dataset, predicted: FilmPrediction, kind: Kind) -> Dataset | None:
    """The film's result of that kind.

    None where there is nothing to make: a segmentation when no finding is called present.
    """
    # both quote the patient's name where they find it odd
    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"highdicom\b")
    makers: Mapping[Kind, Callable[[Dataset, FilmPrediction], Dataset | None]] = {
        Kind.SEGMENTATION: _masks,
        Kind.FRACTIONAL: lambda header, predicted: segmentation(header, predicted, "FRACTIONAL"),
        Kind.OVERLAY: overlay,
        Kind.PRESENTATION: presentation,
        Kind.REPORT: report,
    }
    return makers[kind](header, predicted)


def write_dicom(
    predicted: FilmPrediction,
    folder: Path,
    kinds: Sequence[Kind] = tuple(Kind),
    *,
    faults: list[str] | None = None,
) -> dict[str, Path]:
    """Write the film's results as folder/KIND.dcm, each whole or not at all.

    A kind that cannot be made does not keep the others from being written. A file of an earlier
    call is removed where there is nothing to make now.

    Args:
        faults: gets what is wrong, in one line, instead of an error.

    Returns:
        The files by kind.

    Raises:
        ImageError: without `faults`: the film is no DICOM film that results can be about, or kinds
            cannot be made about it.
    """
    failed: dict[Kind, Exception] = {}
    files: dict[str, Path] = {}
    try:
        header = read_header(predicted.film)
        for kind in kinds:
            path = folder / f"{kind}.dcm"
            content = None
            try:
                content = _encoded(make(header, predicted, kind))
            except _NOT_VALID as fault:
                failed[kind] = fault
            if content is None:
                path.unlink(missing_ok=True)
                continue
            write_bytes(path, content)
            files[str(kind)] = path
        if failed:
            # their words are left to --debug: they can quote the patient's name
            listed = ", ".join(f"{kind}: {type(fault).__name__}" for kind, fault in failed.items())
            raise ImageError(
                f"{predicted.film.source}: no valid DICOM result can be made about it ({listed}); "
                "correct its header"
            ) from next(iter(failed.values()))
    except ImageError as fault:
        if faults is None:
            raise
        faults.append(str(fault))
    return files


def export_dicom(
    run: Path,
    images: Sequence[Path],
    out: Path,
    kinds: Sequence[Kind],
    *,
    findings: Sequence[str] | None = None,
    prompts: Path | None = None,
    progress: Report | None = None,
) -> list[Path]:
    """Predict DICOM films and write their results as OUT/FILM/KIND.dcm.

    Returns:
        The files that were written; none for a film without a finding to segment.

    Raises:
        ImageError: films that cannot be read, or that a kind of result cannot be about, all of
            them; everything else is written.
        ConfigError, CheckpointError: as `predict_films`.
    """
    faults: list[str] = []
    files: list[Path] = []
    for name, predicted in predict_films(
        run, images, findings=findings, prompts=prompts, faults=faults, progress=progress
    ):
        files += write_dicom(predicted, out / name, kinds, faults=faults).values()
    if faults:
        listed = "\n".join(faults)
        raise ImageError(
            f"{len(faults)} of {len(images)} images failed; {len(files)} files of what could be "
            f"made are in {out}:\n{listed}"
        )
    return files


def _encoded(result: Dataset | None) -> bytes | None:
    if result is None:
        return None
    stream = io.BytesIO()
    result.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _masks(header: Dataset, predicted: FilmPrediction) -> Dataset | None:
    if not segmented_findings(predicted, "BINARY"):
        return None
    return segmentation(header, predicted, "BINARY")
