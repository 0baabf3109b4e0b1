"""The DICOM film that results are about: its header, checked, and the identity of what is made.

A result belongs to the film's patient and study and is a series of its own. Its UIDs follow from
the film, the model and what the model said, so that repeating a prediction makes the same UIDs and
an archive keeps one copy, while anything else that was said gets UIDs of its own. An object of one
UID must be the same object, so that nothing in it tells when it was made.
"""

import io
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DA, TM

from dwarf_cxr import __version__
from dwarf_cxr.data.dicom import guarded, parse
from dwarf_cxr.data.images import is_dicom, read_content
from dwarf_cxr.errors import ImageError
from dwarf_cxr.export.codes import OURS, Concept, long_string
from dwarf_cxr.export.dicom_display import make_valid
from dwarf_cxr.prediction import NOTICE, Film, FilmPrediction

if TYPE_CHECKING:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import CodedConcept

MANUFACTURER = "dwarf-cxr"
CREATOR = "dwarf-cxr^"
"""A person's name in form: DICOM gives the creator of a content no other."""
UNICODE = "ISO_IR 192"
IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""Every DICOM object has these, with or without a value."""
MAKING = (
    "InstanceCreationDate",
    "InstanceCreationTime",
    "DateOfSecondaryCapture",
    "TimeOfSecondaryCapture",
)
"""When an object was made; every object may be without."""
MIDNIGHT = "000000"


@dataclass(frozen=True)
class Identity:
    """What names a result: its series, itself, and the device that made it."""

    series_uid: UID
    instance_uid: UID
    series_number: int
    description: str
    """Of the series: what it is, by which method and version, and that it is for research only."""
    algorithm: str
    version: str
    weights_sha256: str
    parameters: str


def read_header(film: Film) -> Dataset:
    """The header of the film's DICOM file, without pixels, ready to be referred to.

    Texts become Unicode. Required attributes that the file leaves out are there without a value,
    and dates, times and a sex that break DICOM's own format lose theirs: what is made is to be
    valid also where the film is not; for the same reason what displays it is that which reading it
    used (`dicom_display`). Names and ids stay as they are, since archives match by them.

    Raises:
        ImageError: no DICOM file, or a damaged one; UIDs or the frame's size are missing; several
            frames; colour; or the decoded film is not of the header's size.
    """
    where = str(film.source)
    content = read_content(film.source)
    if not is_dicom(content):
        raise ImageError(
            f"{where}: not a DICOM file; DICOM results need a DICOM film, for others leave them out"
        )
    header = guarded(lambda: _parsed(content, where), where)
    missing = [name for name in (*IDENTIFYING, "Rows", "Columns") if not header.get(name)]
    if missing:
        raise ImageError(f"{where}: {', '.join(missing)} missing; results cannot refer to the film")
    frames, samples = int(header.get("NumberOfFrames") or 1), header.get("SamplesPerPixel", 1)
    if frames != 1 or samples != 1:
        raise ImageError(
            f"{where}: {frames} frames of {samples} values a pixel; DICOM results are made for one "
            "grey frame"
        )
    size = (int(header.Rows), int(header.Columns))
    if film.grey.shape != size:
        raise ImageError(
            f"{where}: decoded to {film.grey.shape} rows and columns, its header says {size}; "
            "regions would lie elsewhere"
        )
    for name in MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, None)
    for name, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        if not _parses(kind, header.get(name)):
            setattr(header, name, None)
    if header.PatientSex not in ("M", "F", "O"):
        header.PatientSex = None
    guarded(lambda: make_valid(header), where)
    return header


def identity(header: Dataset, predicted: FilmPrediction, kind: str, number: int) -> Identity:
    """The identity of a result of that kind about the film."""
    model = predicted.model
    said = [
        [
            one.finding,
            one.score,
            one.threshold,
            one.map_threshold,
            one.grid.shape,
            sha256(one.grid.tobytes()).hexdigest(),
        ]
        for one in predicted.findings
    ]
    about = [
        str(header.SOPInstanceUID),
        predicted.film.sha256,
        __version__,
        model.sha256,
        dict(model.prompts),
        said,
    ]
    prompts = "".join(f"; {name} asked as {words!r}" for name, words in model.prompts.items())
    return Identity(
        series_uid=uid_of("series", kind, about),
        instance_uid=uid_of("instance", kind, about),
        series_number=number,
        description=long_string(f"{NOTICE}: {kind}, dwarf-cxr {__version__}, {model.method}"),
        algorithm=long_string(f"dwarf-cxr {model.method}"),
        version=__version__,
        weights_sha256=model.sha256,
        parameters=f"weights SHA-256 {model.sha256}{prompts}; {NOTICE}".replace("\\", "/"),
    )


def uid_of(*words: object) -> UID:
    """The UID, of an ISO/IEC 9834-8 name-based UUID, that follows from `words`."""
    name = json.dumps([MANUFACTURER, *words], ensure_ascii=True)
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")


def tracking_uid(header: Dataset, predicted: FilmPrediction, *which: object) -> UID:
    """What tells a finding, or a region of it, apart in all results about the film."""
    return uid_of("tracking", str(header.SOPInstanceUID), predicted.model.sha256, *which)


def coded(concept: Concept) -> "CodedConcept":
    """The concept as an item of a code sequence."""
    from highdicom.sr import CodedConcept

    return CodedConcept(concept.value, concept.scheme, concept.meaning)


def coding_schemes(concepts: Iterable[Concept]) -> "list[CodingSchemeIdentificationItem] | None":
    """What identifies our own coding scheme in an object with these concepts, if it is used."""
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    if all(concept.scheme != OURS for concept in concepts):
        return None
    return [
        CodingSchemeIdentificationItem(
            designator=OURS,
            name="dwarf-cxr findings",
            responsible_organization=MANUFACTURER,
        )
    ]


def finish(result: Dataset, header: Dataset) -> Dataset:
    """`result` with what every object about the film has.

    Unicode, so that any finding's name and any patient's can be written; the body part, without
    which a side would have to be named; which way round the patient is, without a value where the
    film does not say it.
    """
    result.SpecificCharacterSet = UNICODE
    if result.Modality != "SR":
        result.BodyPartExamined = "CHEST"
    if "Rows" in result:
        result.PatientOrientation = header.get("PatientOrientation")
    _take_date_from_film(result, header)
    return result


def _take_date_from_film(result: Dataset, header: Dataset) -> None:
    """Remove when the result was made; dates that must be there are the film's.

    Where the film has none, they stay those of the making: there must be one.
    """
    for name in MAKING:
        if name in result:
            delattr(result, name)
    the_films = header.get("ContributingEquipmentSequence") or []
    for item in result.get("ContributingEquipmentSequence") or []:
        if "ContributionDateTime" in item and item not in the_films:
            del item.ContributionDateTime
    for kind in ("Content", "Study"):
        date, time = header.get(f"{kind}Date"), header.get(f"{kind}Time")
        if not date or not _parses(DA, date):
            continue
        for made in ("Content", "PresentationCreation"):
            if f"{made}Date" in result:
                setattr(result, f"{made}Date", date)
                setattr(result, f"{made}Time", time if time and _parses(TM, time) else MIDNIGHT)
        return


def _parsed(content: bytes, where: str) -> Dataset:
    header = parse(io.BytesIO(content), where)
    little_endian = header.original_encoding[1]
    for name in ("TransferSyntaxUID", "PixelData"):
        if name in header:
            delattr(header, name)
    header.decode()
    header.SpecificCharacterSet = UNICODE
    header.set_original_encoding(False, little_endian, [UNICODE])
    return header


def _parses(kind: type, value: object) -> bool:
    if value is None or value == "":
        return True
    try:
        kind(value)
    except ValueError:
        return False
    return True
