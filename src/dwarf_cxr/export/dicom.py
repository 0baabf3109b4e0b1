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
    predicted: FilmPrediction, folder: Path, kinds: Sequence[Kind] = tuple(Kind)
) -> dict[str, Path]:
    """Write the film's results as folder/KIND.dcm, each whole or not at all.

    A file of an earlier call is removed where there is nothing to make now.

    Returns:
        The files by kind.

    Raises:
        ImageError: the film is no DICOM film that results can be about; nothing is written.
    """
    header = read_header(predicted.film)
    try:
        made = {kind: _encoded(make(header, predicted, kind)) for kind in kinds}
    except (ValueError, TypeError, LookupError, AttributeError, struct.error) as fault:
        # its words are left to --debug: they can quote the patient's name
        raise ImageError(
            f"{predicted.film.source}: no valid DICOM result can be made about it "
            f"({type(fault).__name__}); correct its header"
        ) from fault
    files = {}
    for kind, content in made.items():
        path = folder / f"{kind}.dcm"
        if content is None:
            path.unlink(missing_ok=True)
            continue
        write_bytes(path, content)
        files[str(kind)] = path
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
        ImageError: films that cannot be read, or that no result can be about, all of them; the
            others are written.
        ConfigError, CheckpointError: as `predict_films`.
    """
    faults: list[str] = []
    files: list[Path] = []
    for name, predicted in predict_films(
        run, images, findings=findings, prompts=prompts, faults=faults, progress=progress
    ):
        try:
            files += write_dicom(predicted, out / name, kinds).values()
        except ImageError as fault:
            faults.append(str(fault))
    if faults:
        listed = "\n".join(faults)
        raise ImageError(
            f"{len(faults)} of {len(images)} images failed; {len(files)} files of the others are "
            f"in {out}:\n{listed}"
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
