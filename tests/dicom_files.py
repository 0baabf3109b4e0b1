"""DICOM films made from arrays, every property an explicit argument.

Unless told otherwise the files are valid DX, CR and Secondary Capture objects (`dciodvfy` finds no
error, but that a DX image for presentation needs a window or a VOI table) that leave out what chest
films leave out: there is no frame of reference. Ids follow from the arguments, so that the same
call makes the same bytes. Nothing keeps a caller from making wrong files: `changes` and `removed`
are applied last.
"""

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite

RAW = uid.ExplicitVRLittleEndian
IMPLICIT = uid.ImplicitVRLittleEndian
BIG_ENDIAN = uid.ExplicitVRBigEndian
DEFLATED = uid.DeflatedExplicitVRLittleEndian
RLE = uid.RLELossless
JPEG_LS = uid.JPEGLSLossless
JPEG_2000 = uid.JPEG2000Lossless
LOSSLESS = (RAW, IMPLICIT, BIG_ENDIAN, DEFLATED, RLE, JPEG_LS, JPEG_2000)
JPEG_LOSSLESS = uid.JPEGLosslessSV1
"""Encoded here; unsigned values only."""
JPEG_BASELINE = uid.JPEGBaseline8Bit
"""Lossy, 8 bits."""

PRESENTATION, PROCESSING = "FOR PRESENTATION", "FOR PROCESSING"

_CLASSES = {
    ("DX", PRESENTATION): uid.DigitalXRayImageStorageForPresentation,
    ("DX", PROCESSING): uid.DigitalXRayImageStorageForProcessing,
    ("CR", PRESENTATION): uid.ComputedRadiographyImageStorage,
    ("CR", PROCESSING): uid.ComputedRadiographyImageStorage,
    ("CT", PRESENTATION): uid.CTImageStorage,
    ("XC", PRESENTATION): uid.VLPhotographicImageStorage,
}


@dataclass(frozen=True)
class Window:
    """A VOI window in units after rescale; `function` LINEAR, LINEAR_EXACT or SIGMOID.

    None leaves the function out, which means LINEAR. Several centres and widths are alternatives.
    """

    centre: float | Sequence[float]
    width: float | Sequence[float]
    function: str | None = None


@dataclass(frozen=True)
class Lut:
    """A lookup table, of VOI or modality: its first entry stands for the value `first`."""

    entries: Sequence[int]
    first: int = 0
    bits: int = 16


def film(height: int = 48, width: int = 40, *, bits: int = 12, seed: int = 0) -> np.ndarray:
    """Stored values of a smooth bright blob with noise; uses the whole range of `bits` bits.

    JPEG 2000 is not encoded below 32 pixels a side.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-(((y / height - 0.4) ** 2 + (x / width - 0.6) ** 2) / 0.1))
    noisy = blob + rng.normal(0, 0.05, (height, width))
    noisy = (noisy - noisy.min()) / (noisy.max() - noisy.min())
    return np.round(noisy * (2**bits - 1)).astype(np.uint16)


def dicom_bytes(
    stored: np.ndarray,
    *,
    modality: str = "DX",
    intent: str = PRESENTATION,
    photometric: str = "MONOCHROME2",
    bits_stored: int = 12,
    bits_allocated: int = 16,
    signed: bool = False,
    transfer_syntax: uid.UID = RAW,
    restart_rows: int | None = None,
    rescale: tuple[float, float] | None = (1.0, 0.0),
    modality_lut: Lut | None = None,
    window: Window | None = None,
    voi_lut: Lut | None = None,
    padding: int | None = None,
    padding_limit: int | None = None,
    spacing: tuple[float, float] | None = (0.15, 0.15),
    view: str = "PA",
    patient_name: str = "Nobody^Film",
    patient_id: str = "P-1",
    study: str = "1",
    instance: str = "1",
    sop_instance_uid: str | None = None,
    removed: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> bytes:
    """A whole DICOM file.

    Args:
        stored: stored values (height, width), (frame, height, width), or (height, width, 3) for
            the colour photometric interpretations; cut to `bits_allocated` bits, and no further:
            bits above `bits_stored` go to the file as they are, where the transfer syntax lets
            them.
        restart_rows: of lossless JPEG, see `lossless_jpeg`.
        rescale: slope and intercept; None leaves both out.
        voi_lut: its entries are in bits of the display.
        padding: PixelPaddingValue, with `padding_limit` PixelPaddingRangeLimit.
        spacing: PixelSpacing and ImagerPixelSpacing, row then column, in mm.
        study, instance: tell apart studies of a patient and images of a study: they make the UIDs.
        removed: keywords of elements to leave out.
        changes: values by keyword, set at the very end, so that they can be wrong.
    """
    colour = photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    frames = 1 if stored.ndim == 2 or colour else stored.shape[0]
    height, width = stored.shape[:2] if colour else stored.shape[-2:]
    dataset = Dataset()
    _describe_patient(dataset, patient_name, patient_id)
    _describe_image(dataset, modality, intent, photometric, view, spacing, frames)
    key = f"{patient_id}/{study}/{instance}/{modality}/{intent}"
    dataset.StudyInstanceUID = _uid(f"{patient_id}/{study}")
    dataset.SeriesInstanceUID = _uid(f"{patient_id}/{study}/{modality}/{intent}")
    dataset.SOPInstanceUID = sop_instance_uid or _uid(key)
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1

    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = photometric
    if colour:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = height, width
    dataset.BitsAllocated, dataset.BitsStored = bits_allocated, bits_stored
    dataset.HighBit, dataset.PixelRepresentation = bits_stored - 1, int(signed)
    value_kind = "SS" if signed else "US"
    if padding is not None:
        dataset.add_new("PixelPaddingValue", value_kind, padding)
    if padding_limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", value_kind, padding_limit)
    if rescale is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = rescale
        dataset.RescaleType = "US"
    if modality_lut is not None:
        dataset.ModalityLUTSequence = [_lut(modality_lut, transfer_syntax)]
        dataset.ModalityLUTSequence[0].ModalityLUTType = "US"
    if window is not None:
        dataset.WindowCenter, dataset.WindowWidth = window.centre, window.width
        if window.function is not None:
            dataset.VOILUTFunction = window.function
    if voi_lut is not None:
        dataset.VOILUTSequence = [_lut(voi_lut, transfer_syntax)]

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = RAW
    dataset.file_meta = meta
    _store_pixels(dataset, stored, transfer_syntax, restart_rows)
    for keyword in removed:
        delattr(dataset, keyword)
    for keyword, value in (changes or {}).items():
        setattr(dataset, keyword, value)
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _describe_patient(dataset: Dataset, name: str, patient_id: str) -> None:
    dataset.PatientName, dataset.PatientID = name, patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "19500203", "O"
    dataset.StudyDate, dataset.StudyTime = "20200102", "030405"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A1", "Doctor^Some"
    dataset.InstitutionName, dataset.Manufacturer = "A hospital", "Nobody"


def _describe_image(
    dataset: Dataset,
    modality: str,
    intent: str,
    photometric: str,
    view: str,
    spacing: tuple[float, float] | None,
    frames: int,
) -> None:
    """Everything of the object's modules that does not concern the coding of pixels."""
    storage = _CLASSES.get((modality, intent), uid.SecondaryCaptureImageStorage)
    if frames > 1:
        storage = uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset.SOPClassUID, dataset.Modality = storage, modality
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""] if modality == "DX" else ["ORIGINAL", "PRIMARY"]
    dataset.BodyPartExamined, dataset.PatientOrientation = "CHEST", ["L", "F"]
    dataset.BurnedInAnnotation = "NO"
    if spacing is not None:
        if modality in ("DX", "CR"):
            dataset.ImagerPixelSpacing = list(spacing)
        dataset.PixelSpacing = list(spacing)
        if modality == "DX":
            dataset.PixelSpacingCalibrationType = "GEOMETRY"
            dataset.PixelSpacingCalibrationDescription = "at the detector"
    if modality == "CR":
        dataset.ViewPosition = view
        dataset.PresentationIntentType = intent
    elif modality not in ("DX", "CT", "XC"):
        dataset.ConversionType = "DI"
    if modality != "DX":
        return
    dataset.PresentationIntentType = intent
    dataset.ViewPosition = view
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = [_code("816094009", "SCT", "Chest")]
    dataset.ViewCodeSequence = [_code("399348003", "SCT", "postero-anterior")]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.PositionerType = ""
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = -1
    dataset.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    dataset.LossyImageCompression = "00"
    dataset.DetectorType = "DIRECT"
    dataset.AcquisitionContextSequence = []


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _lut(lut: Lut, transfer_syntax: uid.UID) -> Dataset:
    item = Dataset()
    kind = "SS" if lut.first < 0 else "US"
    order = ">u2" if transfer_syntax == BIG_ENDIAN else "<u2"
    item.add_new("LUTDescriptor", kind, [len(lut.entries) % 65536, lut.first, lut.bits])
    item.LUTExplanation = "a table"
    item.add_new("LUTData", "OW", np.asarray(lut.entries, order).tobytes())
    return item


def _uid(words: str) -> str:
    return f"2.25.{int(sha256(words.encode()).hexdigest()[:30], 16)}"


def _store_pixels(
    dataset: Dataset, stored: np.ndarray, transfer_syntax: uid.UID, restart_rows: int | None
) -> None:
    kind = np.dtype(f"{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}")
    values = np.ascontiguousarray(stored.astype(np.int64).astype(kind))
    big_endian = transfer_syntax == BIG_ENDIAN
    raw = values.astype(kind.newbyteorder(">" if big_endian else "<")).tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    if transfer_syntax in (RLE, JPEG_LS, JPEG_2000):
        dataset.compress(transfer_syntax, generate_instance_uid=False)
    elif transfer_syntax == JPEG_BASELINE:
        stream = io.BytesIO()
        Image.fromarray(values).save(stream, "JPEG", quality=95)
        _encapsulate(dataset, stream.getvalue())
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = round(len(raw) / len(stream.getvalue()), 2)
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
    elif transfer_syntax == JPEG_LOSSLESS:
        _encapsulate(dataset, lossless_jpeg(values, dataset.BitsStored, restart_rows=restart_rows))
    dataset.file_meta.TransferSyntaxUID = transfer_syntax


def _encapsulate(dataset: Dataset, frame: bytes) -> None:
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def lossless_jpeg(
    values: np.ndarray, bits: int, *, predictor: int = 1, restart_rows: int | None = None
) -> bytes:
    """Unsigned values (height, width) as a lossless JPEG stream (process 14).

    ITU-T T.81, annex H; every difference has a code of 5 bits and its own bits. With
    `restart_rows` prediction begins anew after every so many rows.
    """
    height, width = values.shape
    wide = values.astype(np.int64)
    rows = restart_rows or height
    parts = [
        _lossless_scan(wide[first : first + rows], bits, predictor)
        for first in range(0, height, rows)
    ]
    scan = parts[0]
    for number, part in enumerate(parts[1:]):
        scan += bytes([0xFF, 0xD0 + number % 8]) + part
    frame = struct.pack(">BHHBBBB", bits, height, width, 1, 1, 0x11, 0)
    code_lengths = bytes([0, 0, 0, 0, 17, *[0] * 11])
    restarts = b"" if restart_rows is None else _segment(0xDD, struct.pack(">H", rows * width))
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xC3, frame),
            _segment(0xC4, b"\x00" + code_lengths + bytes(range(17))),
            restarts,
            _segment(0xDA, bytes([1, 1, 0, predictor, 0, 0])),
            scan,
            b"\xff\xd9",
        ]
    )


def _lossless_scan(wide: np.ndarray, bits: int, predictor: int) -> bytes:
    left, above, corner = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]
    predicted = np.empty(wide.shape, np.int64)
    predicted[0, 0] = 2 ** (bits - 1)
    predicted[0, 1:], predicted[1:, 0] = wide[0, :-1], wide[:-1, 0]
    predicted[1:, 1:] = {
        1: left,
        2: above,
        3: corner,
        4: left + above - corner,
        5: left + ((above - corner) >> 1),
        6: above + ((left - corner) >> 1),
        7: (left + above) >> 1,
    }[predictor]
    written = []
    differences = ((wide - predicted + 32767) & 0xFFFF) - 32767  # modulo 65536, 32768 at most
    for difference in differences.ravel().tolist():
        category = abs(difference).bit_length()
        written.append(f"{category:05b}")
        if 0 < category < 16:
            own = difference if difference > 0 else difference + 2**category - 1
            written.append(f"{own:0{category}b}")
    coded = "".join(written)
    coded += "1" * (-len(coded) % 8)
    return int(coded, 2).to_bytes(len(coded) // 8, "big").replace(b"\xff", b"\xff\x00")


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
