"""How a film is displayed, as results may pass it on: what reading it used, in valid form.

Films are read that hold an empty window, a table whose descriptor cannot be right, or half of a
rescaling. Whatever of that reading them ignored or completed, results must not repeat.
"""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from dwarf_cxr.data.dicom import first_value, lookup_table, windows_of

RESCALE = ("RescaleSlope", "RescaleIntercept", "RescaleType")
WINDOW = ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
MODALITY = ("ModalityLUTSequence", *RESCALE)
VOI = ("VOILUTSequence", *WINDOW)
_UNSPECIFIED = "US"


def make_valid(header: Dataset) -> None:
    """Leave in `header` the transformations by which `decode_dicom` displays the film, no others.

    A modality table or a whole rescaling; a VOI table or the usable windows. Tables get 16 bits, as
    a presentation state wants them.

    Raises:
        ValueError: a table is cut off.
    """
    windows = windows_of(header)
    has_voi_table = bool(header.get("VOILUTSequence"))
    if header.get("ModalityLUTSequence"):
        _remove(header, RESCALE)
        _take_first_table(header, "ModalityLUTSequence", scaled=not windows and not has_voi_table)
    else:
        _remove(header, ("ModalityLUTSequence",))
        _complete_rescaling(header)
    if has_voi_table:
        _remove(header, WINDOW)
        _take_first_table(header, "VOILUTSequence", scaled=True)
        return
    _remove(header, ("VOILUTSequence",))
    if not windows:
        _remove(header, WINDOW)
        return
    words = header.get("WindowCenterWidthExplanation")
    if len([words] if isinstance(words, str) else words or ()) != len(windows):
        _remove(header, ("WindowCenterWidthExplanation",))
    header.WindowCenter = [DSfloat(window.centre, auto_format=True) for window in windows]
    header.WindowWidth = [DSfloat(window.width, auto_format=True) for window in windows]
    if "VOILUTFunction" in header:
        header.VOILUTFunction = windows[0].function


def _remove(header: Dataset, names: tuple[str, ...]) -> None:
    for name in names:
        if name in header:
            delattr(header, name)


def _complete_rescaling(header: Dataset) -> None:
    """A missing slope is 1 and a missing intercept 0, as in reading; without both there is none."""
    if all(first_value(header, name) is None for name in RESCALE[:2]):
        _remove(header, RESCALE)
        return
    for name, usual in zip(RESCALE, (1, 0, _UNSPECIFIED), strict=True):
        if first_value(header, name) is None:
            setattr(header, name, usual)


def _take_first_table(header: Dataset, name: str, *, scaled: bool) -> None:
    """Replace a sequence of tables by its first, as one of 16 bits.

    Args:
        scaled: its output is displayed, so that its white must become that of 16 bits.
    """
    item = header[name].value[0]
    table = lookup_table(item, big_endian=not header.original_encoding[1])
    values, first = table.entries.astype(np.float64), table.first
    if scaled:
        values = np.round(values * (65535 / (2**table.bits - 1)))
    if first > 32767 and header.get("PixelRepresentation") == 1:
        first -= 65536  # written as unsigned where it can only be signed
    made = Dataset()
    descriptor = [len(values) % 65536, first, 16]
    made.add_new("LUTDescriptor", "SS" if first < 0 else "US", descriptor)
    made.add_new("LUTData", "OW", np.clip(values, 0, 65535).astype("<u2").tobytes())
    if item.get("LUTExplanation"):
        made.add(item["LUTExplanation"])
    if name == "ModalityLUTSequence":
        made.ModalityLUTType = item.get("ModalityLUTType") or _UNSPECIFIED
    setattr(header, name, [made])
