import builtins
import io
import logging
import struct
import subprocess
import sys
import tracemalloc
import zlib

import cv2
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from dwarf_cxr.data import dicom as reading
from dwarf_cxr.data.dicom import decode_dicom
from dwarf_cxr.data.images import decode_grey, find_images, image_stem, read_grey
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Radiograph, SourceSet
from dwarf_cxr.errors import ImageError
from tests import dicom_files as dicom

FILM = dicom.film(48, 40, bits=12)
GREY = np.round(FILM * (255 / 4095))
WHOLE = dicom.Window(127.5, 255, "LINEAR_EXACT")
"""Shows 8 bits as they are."""


def as_pydicom_shows_it(content: bytes) -> np.ndarray:
    """pydicom's own modality and VOI transformations, scaled to 0 to 255."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    units = apply_modality_lut(dataset.pixel_array, dataset)
    shown = apply_voi_lut(units, dataset).astype(float)
    if "VOILUTSequence" in dataset:
        low, high = 0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    else:
        # pydicom scales windowed values to the range of the units
        stored = np.array([0, 2**dataset.BitsStored - 1]) - (
            dataset.PixelRepresentation * 2 ** (dataset.BitsStored - 1)
        )
        slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
        low, high = float(slope) * stored + float(intercept)
    grey = (shown - low) / (high - low) * 255
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


# Exactness -------------------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("syntax", [*dicom.LOSSLESS, dicom.JPEG_LOSSLESS])
def test_png_and_dicom_of_one_film_are_prepared_alike(tmp_path, photometric, syntax):
    stored = FILM if photometric == "MONOCHROME2" else 4095 - FILM
    (tmp_path / "b.dcm").write_bytes(
        dicom.dicom_bytes(stored, photometric=photometric, transfer_syntax=syntax)
    )
    cv2.imwrite(str(tmp_path / "a.png"), FILM)
    films = tuple(
        Radiograph(name, name, tmp_path / name, {"Mass": True}, split=split)
        for name, split in (("a.png", "train"), ("b.dcm", "test"))
    )
    source = SourceSet("two", ("Mass",), films, "generated", "CC0", "nobody")
    data = prepare(source, tmp_path / "data", size=32, progress=lambda done, total: None)
    png, dcm = data.pixels.astype(int)
    assert np.abs(png - dcm).max() <= 1
    assert png.std() > 10
    assert (data.widths[1], data.heights[1]) == (40, 48)


def test_lossy_jpeg_of_8_bits_is_near():
    content = dicom.dicom_bytes(
        GREY.astype(int),
        bits_stored=8,
        bits_allocated=8,
        window=dicom.Window(128, 256),
        transfer_syntax=dicom.JPEG_BASELINE,
    )
    assert np.abs(decode_dicom(content, "a") - GREY).mean() < 3


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("syntax", [dicom.RAW, dicom.JPEG_LS, dicom.JPEG_2000, dicom.RLE])
def test_every_depth_is_scaled_to_8_bits(bits, syntax):
    film = dicom.film(36, 50, bits=bits)
    content = dicom.dicom_bytes(
        film, bits_stored=bits, bits_allocated=8 if bits == 8 else 16, transfer_syntax=syntax
    )
    assert np.abs(decode_dicom(content, "a") - film * (255 / (2**bits - 1))).max() <= 0.5


# Modality and VOI ------------------------------------------------------------------------------


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("rescale", [(1.0, 0.0), (0.5, -300.0), (-2.0, 100.0), None])
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(photometric, signed, rescale, function):
    slope, intercept = rescale or (1.0, 0.0)
    middle = (0 if signed else 2048) * slope + intercept
    content = dicom.dicom_bytes(
        FILM.astype(int) - (2048 if signed else 0),
        photometric=photometric,
        signed=signed,
        rescale=rescale,
        window=dicom.Window([middle + 100.5, 7], [1000, 8], function),
    )
    assert np.abs(decode_dicom(content, "a") - as_pydicom_shows_it(content)).max() <= 0.51


@pytest.mark.parametrize("window", [dicom.Window(2000, 1), dicom.Window(2000.5, 0.5, "LINEAR")])
def test_the_narrowest_window_is_a_threshold_and_a_narrower_one_is_none(window):
    content = dicom.dicom_bytes(FILM, window=window)
    want = np.where(FILM > 1999.5, 255, 0) if window.width == 1 else GREY
    np.testing.assert_array_equal(decode_dicom(content, "a"), want)


@pytest.mark.parametrize("width", [0, -5])
def test_a_window_without_width_is_none(width):
    content = dicom.dicom_bytes(FILM, window=dicom.Window(100, width, "LINEAR_EXACT"))
    np.testing.assert_array_equal(decode_dicom(content, "a"), GREY)


@pytest.mark.parametrize("syntax", [dicom.RAW, dicom.BIG_ENDIAN])
def test_voi_tables_agree_with_pydicom_and_go_before_windows(syntax):
    table = dicom.Lut(np.round(1023 * (np.arange(2000) / 1999) ** 2).astype(int), 1000, 10)
    arguments = {"voi_lut": table, "transfer_syntax": syntax, "rescale": (1.5, -100.0)}
    grey = decode_dicom(dicom.dicom_bytes(FILM, window=dicom.Window(5, 3), **arguments), "a")
    np.testing.assert_array_equal(grey, decode_dicom(dicom.dicom_bytes(FILM, **arguments), "a"))
    little = dicom.dicom_bytes(FILM, voi_lut=table, rescale=(1.5, -100.0))
    assert np.abs(grey - as_pydicom_shows_it(little)).max() <= 1


def test_a_voi_table_is_scaled_by_the_bits_its_entries_use():
    table = dicom.Lut(range(4096), 0, 16)  # says 16 bits, uses 12
    np.testing.assert_array_equal(decode_dicom(dicom.dicom_bytes(FILM, voi_lut=table), "a"), GREY)


@pytest.mark.parametrize(
    ("stated", "highest", "white"),
    [
        (10, 500, 1023),  # meant to be dark
        (12, 1023, 4095),
        (16, 16383, 65535),
        (16, 4096, 65535),
        (16, 4095, 4095),  # the usual mistake
        (16, 250, 255),
        (8, 4095, 4095),  # entries beyond what is stated
        (0, 4095, 4095),
        (32, 65535, 65535),
    ],
)
def test_the_bits_of_a_table_are_corrected_only_where_they_cannot_be_right(stated, highest, white):
    entries = np.round(np.linspace(0, highest, 4096)).astype(int)
    content = dicom.dicom_bytes(FILM, voi_lut=dicom.Lut(entries, 0, stated))
    want = entries[FILM] * (255 / white)
    assert np.abs(decode_dicom(content, "a") - want).max() <= 0.5


def table_of_bytes(bits: int, data: bytes) -> bytes:
    """A film with a VOI table of 256 entries, whatever `data` holds."""
    item = pydicom.Dataset()
    item.LUTDescriptor = [256, 0, bits]
    item.add_new("LUTData", "OW", data)
    changes = {"VOILUTSequence": [item]}
    return dicom.dicom_bytes(FILM >> 4, bits_stored=8, bits_allocated=8, changes=changes)


def test_tables_of_bytes_are_read_and_tables_cut_short_refused():
    entries = np.arange(256)[::-1]
    for data in (entries.astype("u1").tobytes(), entries.astype("<u2").tobytes()):
        got = decode_dicom(table_of_bytes(8, data), "a")
        np.testing.assert_array_equal(got, 255 - (FILM >> 4))
    words = (entries * 16).astype("<u2").tobytes()
    for bits, cut in ((12, words[:-2]), (12, words[:256]), (8, words[:300]), (8, words[:254])):
        assert "damaged DICOM file" in refused(table_of_bytes(bits, cut))


def test_modality_tables_are_applied_before_the_window():
    table = dicom.Lut([4095 - value for value in range(4096)], 0, 16)
    content = dicom.dicom_bytes(
        FILM, rescale=None, modality_lut=table, window=dicom.Window(2048, 4096)
    )
    assert np.abs(decode_dicom(content, "a") - (255 - GREY)).max() <= 1


def test_without_a_window_the_full_range_is_shown():
    content = dicom.dicom_bytes(FILM // 4 + 1000)
    want = (FILM // 4) * (255 / (FILM // 4).max())
    assert np.abs(decode_dicom(content, "a") - want).max() <= 0.51


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_takes_no_part_and_is_black(photometric, signed):
    values = (FILM // 4 + 1000).astype(int) - (1500 if signed else 0)
    padded = values.copy()
    least = -2000 if signed else 3
    padded[:5], padded[5:7] = least, least + 2
    arguments = {"photometric": photometric, "signed": signed}
    # the darkest and the brightest pixel must not be among those that are padded
    assert {values[7:].min(), values[7:].max()} == {values.min(), values.max()}
    plain = decode_dicom(dicom.dicom_bytes(values, **arguments), "a")
    content = dicom.dicom_bytes(padded, padding=least, padding_limit=least + 2, **arguments)
    grey = decode_dicom(content, "a")
    np.testing.assert_array_equal(grey[7:], plain[7:])
    assert (grey[:7] == 0).all()


@pytest.mark.parametrize("kind", ["OB", "OW"])
@pytest.mark.parametrize("shape", [(6, 9), (7, 9), (1, 1)])
def test_bytes_in_big_endian_words_are_those_that_pydicom_reads(kind, shape):
    stored = np.random.default_rng(1).integers(0, 256, shape)
    content = dicom.dicom_bytes(
        stored, bits_stored=8, bits_allocated=8, window=WHOLE, transfer_syntax=dicom.BIG_ENDIAN
    )
    start = b"\x7f\xe0\x00\x10"
    assert content.count(start + b"OB") == 1
    content = content.replace(start + b"OB", start + kind.encode())
    read = pydicom.dcmread(io.BytesIO(content)).pixel_array
    np.testing.assert_array_equal(decode_dicom(content, "a"), read)
    assert (read == stored).all() == (kind == "OB")


def test_a_padding_value_above_the_stored_bits_is_a_word():
    padded = FILM.copy()
    padded[:3] = 65535
    assert FILM[3:].max() == 4095
    grey = decode_dicom(dicom.dicom_bytes(padded, padding=65535), "a")
    np.testing.assert_array_equal(grey[3:], GREY[3:])
    assert (grey[:3] == 0).all()


# Faults 12 to 21 -------------------------------------------------------------------------------


def refused(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_grey(content, "box/film7.dcm")
    message = str(caught.value)
    assert message.startswith("box/film7.dcm: ")
    assert "\n" not in message
    return message


def test_fault_12_monochrome1_is_inverted_after_the_window():
    window = dicom.Window(1000, 1001)
    shown = decode_dicom(dicom.dicom_bytes(FILM, window=window), "a").astype(int)
    turned = dicom.dicom_bytes(FILM, window=window, photometric="MONOCHROME1")
    assert np.abs(decode_dicom(turned, "a") - (255 - shown)).max() <= 1
    assert shown.mean() > 128  # before the window the inversion would give a dark film as well


@pytest.mark.parametrize("syntax", [dicom.RAW, dicom.RLE])
def test_fault_13_several_frames_are_refused(syntax):
    content = dicom.dicom_bytes(np.stack([FILM] * 3), modality="DX", transfer_syntax=syntax)
    assert "3 frames; export the one frame" in refused(content)


def test_one_frame_that_says_so_is_read():
    content = dicom.dicom_bytes(FILM, changes={"NumberOfFrames": 1})
    np.testing.assert_array_equal(decode_dicom(content, "a"), GREY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"BitsStored": 20, "HighBit": 19},
        {"BitsStored": 0},
        {"BitsStored": 12, "HighBit": 3},
        {"HighBit": 16},
        {"BitsAllocated": 12},
        {"BitsAllocated": 32},
        {"Rows": 0},
        {"RescaleSlope": "nan"},
    ],
)
def test_fault_14_contradictory_fields_are_refused(wrong):
    with pydicom.config.disable_value_validation():
        message = refused(dicom.dicom_bytes(FILM, changes=wrong))
    assert "damaged" not in message


@pytest.mark.parametrize("syntax", [dicom.RAW, dicom.BIG_ENDIAN, dicom.RLE])
@pytest.mark.parametrize("signed", [False, True])
def test_fault_15_junk_above_the_stored_bits_is_masked(syntax, signed):
    values = FILM.astype(int) - (2048 if signed else 0)
    junk = np.random.default_rng(0).integers(0, 16, FILM.shape) << 12
    content = dicom.dicom_bytes((values & 0xFFF) | junk, signed=signed, transfer_syntax=syntax)
    np.testing.assert_array_equal(decode_dicom(content, "a"), GREY)


def test_values_in_the_upper_bits_are_read_there():
    content = dicom.dicom_bytes(FILM.astype(int) << 4 | 5, changes={"HighBit": 15})
    np.testing.assert_array_equal(decode_dicom(content, "a"), GREY)


@pytest.mark.parametrize("syntax", [*dicom.LOSSLESS])
def test_fault_16_signed_pixels_are_read_as_signed(syntax):
    content = dicom.dicom_bytes(
        FILM.astype(int) - 2048, signed=True, rescale=(2.0, 50.0), transfer_syntax=syntax
    )
    np.testing.assert_array_equal(decode_dicom(content, "a"), GREY)


@pytest.mark.parametrize(
    "missing",
    [
        ["Rows"],
        ["PixelData"],
        ["PhotometricInterpretation"],
        ["Columns", "BitsStored", "PixelRepresentation"],
    ],
)
def test_fault_17_missing_fields_are_named(missing):
    message = refused(dicom.dicom_bytes(FILM, removed=missing))
    assert f"without {', '.join(missing)}" in message


@pytest.mark.parametrize("syntax", [*dicom.LOSSLESS, dicom.JPEG_LOSSLESS])
@pytest.mark.parametrize("lost", [5, 500, 2000])
def test_fault_18_truncated_pixels_are_refused(syntax, lost, recwarn, capfd):
    content = dicom.dicom_bytes(FILM, transfer_syntax=syntax)
    assert "again" in refused(content[:-lost])
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_bytes_behind_the_pixels_are_ignored(recwarn):
    content = dicom.dicom_bytes(FILM, changes={"PixelData": FILM.tobytes() + b"\0" * 10})
    np.testing.assert_array_equal(decode_dicom(content, "a"), GREY)
    assert not recwarn.list


def deflate_bomb() -> bytes:
    content = dicom.dicom_bytes(FILM, transfer_syntax=dicom.DEFLATED)
    start = 144 + int.from_bytes(content[140:144], "little")  # behind the meta information
    plain = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(plain)
    packed += b"".join(packer.compress(bytes(1 << 22)) for _ in range(64))
    return content[:start] + packed + packer.flush()


def test_fault_19_a_deflate_bomb_is_bounded(monkeypatch):
    bomb = deflate_bomb()
    assert len(bomb) < 300_000
    monkeypatch.setattr(reading, "MAX_INFLATED", 1 << 20)
    tracemalloc.start()
    assert "unpacks to more than 1,048,576 bytes" in refused(bomb)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_declared_sizes_are_bounded_before_anything_is_decoded():
    for syntax in (dicom.RAW, dicom.RLE, dicom.JPEG_2000):
        content = dicom.dicom_bytes(
            FILM, transfer_syntax=syntax, changes={"Rows": 20_000, "Columns": 20_000}
        )
        assert "more than 100,000,000 pixels" in refused(content)


@pytest.mark.parametrize("syntax", [dicom.JPEG_LS, dicom.JPEG_2000, dicom.JPEG_LOSSLESS])
def test_a_frame_of_another_size_is_refused_from_its_own_header(syntax):
    content = dicom.dicom_bytes(FILM, transfer_syntax=syntax, changes={"Columns": 41})
    assert "of 40×48 where the header says 41×48" in refused(content)


def coded_as(syntax: uid.UID, frame: bytes, film: np.ndarray) -> bytes:
    """A DICOM file of the film's size that holds `frame` as its pixels."""
    dataset = pydicom.dcmread(io.BytesIO(dicom.dicom_bytes(film, transfer_syntax=syntax)))
    dataset.PixelData = pydicom.encaps.encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def frame_of(syntax: uid.UID, film: np.ndarray) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom.dicom_bytes(film, transfer_syntax=syntax)))
    return pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)


def box(kind: bytes, content: bytes, *, long: bool = False) -> bytes:
    if long:
        return struct.pack(">L4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">L4s", 8 + len(content), kind) + content


JP2_START = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")


@pytest.mark.parametrize("long", [False, True])
def test_jpeg_2000_in_a_jp2_file_is_read_past_its_other_boxes(long):
    # the box of comments begins as a codestream of another size does
    other = frame_of(dicom.JPEG_2000, dicom.film(36, 50))[:60]
    jp2 = JP2_START + box(b"uuid", other)
    jp2 += box(b"jp2c", frame_of(dicom.JPEG_2000, FILM), long=long)
    content = coded_as(dicom.JPEG_2000, jp2, FILM)
    np.testing.assert_array_equal(decode_dicom(content, "a"), GREY)


def test_the_size_of_jpeg_2000_cannot_be_claimed_elsewhere():
    large = frame_of(dicom.JPEG_2000, dicom.film(96, 80))
    claimed = frame_of(dicom.JPEG_2000, FILM)[:60]
    jp2 = JP2_START + box(b"uuid", claimed) + box(b"jp2c", large)
    assert "of 80×96 where the header says 40×48" in refused(coded_as(dicom.JPEG_2000, jp2, FILM))
    for frame in (b"\0\0" + frame_of(dicom.JPEG_2000, FILM), JP2_START, jp2[:-5000]):
        assert "damaged or truncated pixels" in refused(coded_as(dicom.JPEG_2000, frame, FILM))


@pytest.mark.parametrize(
    ("syntax", "decoder"),
    [
        (dicom.JPEG_2000, "openjpeg.utils.decode_pixel_data"),
        (dicom.JPEG_LS, "jpeg_ls.decode_pixel_data"),
    ],
)
@pytest.mark.parametrize("extra", [-2, 2, 48 * 40])
def test_another_number_of_decoded_bytes_is_refused(monkeypatch, syntax, decoder, extra):
    decoded = bytearray(FILM.astype("<u2").tobytes())
    decoded = decoded[:extra] if extra < 0 else decoded + bytes(extra)
    answer = (decoded, {}) if syntax == dicom.JPEG_LS else decoded
    monkeypatch.setattr(decoder, lambda *words, **options: answer)
    content = dicom.dicom_bytes(FILM, transfer_syntax=syntax)
    assert "damaged or truncated pixels" in refused(content)


@pytest.mark.parametrize(
    ("syntax", "module", "package"),
    [(dicom.JPEG_LS, "jpeg_ls", "pyjpegls"), (dicom.JPEG_2000, "openjpeg", "pylibjpeg-openjpeg")],
)
def test_fault_20_a_missing_codec_names_the_package(monkeypatch, syntax, module, package):
    content = dicom.dicom_bytes(FILM, transfer_syntax=syntax)
    real_import = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    assert f"pip install {package}" in refused(content)


def test_a_coding_that_nothing_free_decodes_is_named():
    content = dicom.dicom_bytes(FILM)
    other = content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    assert "1.2.840.10008.1.2.9, which no free package decodes" in refused(other)
    twelve_bits = dicom.lossless_jpeg(FILM, 12).replace(b"\xff\xc3", b"\xff\xc1")
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.PixelData = pydicom.encaps.encapsulate([twelve_bits])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.JPEGExtended12Bit
    stream = io.BytesIO()
    dataset.save_as(stream)
    assert "JPEG pixels of 12 bits" in refused(stream.getvalue())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello" * 100, "not a PNG, JPEG or DICOM image"),
        (bytes(128) + b"DICM", "names no transfer syntax"),
        (bytes(128) + b"DICM" + b"\2\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0", "without Rows"),
    ],
)
def test_fault_21_what_is_no_dicom_film_is_refused(content, message):
    assert message in refused(content)
    with pytest.raises(ImageError, match="not a DICOM file"):
        decode_dicom(b"x" * 300, "a")


@pytest.mark.parametrize("modality", ["CT", "MR", "XC", "OT", "SR"])
def test_other_modalities_are_refused(modality):
    assert f"modality {modality!r}" in refused(dicom.dicom_bytes(FILM, modality=modality))


@pytest.mark.parametrize("removed", [["Modality"], []])
def test_computed_films_and_files_without_modality_are_read(removed):
    content = dicom.dicom_bytes(FILM, modality="CR", removed=removed)
    np.testing.assert_array_equal(decode_dicom(content, "a"), GREY)


def test_colour_is_refused():
    colour = np.zeros((8, 9, 3), np.uint8)
    content = dicom.dicom_bytes(colour, photometric="RGB", bits_allocated=8, bits_stored=8)
    assert "'RGB' with 3 samples" in refused(content)


def test_images_for_processing_are_refused():
    content = dicom.dicom_bytes(FILM, intent=dicom.PROCESSING)
    assert "FOR PROCESSING" in refused(content)


def test_no_field_of_a_damaged_file_is_quoted(recwarn, caplog, capfd):
    content = dicom.dicom_bytes(FILM, patient_name="SMITH^JOHN", window=dicom.Window(2048, 4096))
    bad = content.replace(b"2048", b"SMIT", 1)
    assert bad != content
    with caplog.at_level(logging.DEBUG):
        message = refused(bad)
    assert "SMIT" not in message + caplog.text + "".join(capfd.readouterr())
    assert not recwarn.list


# Files -----------------------------------------------------------------------------------------


def test_dicom_files_are_found_by_their_suffixes(tmp_path):
    for name in ("a.dcm", "deep/b.DICOM", "c.txt", "._a.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(dicom.dicom_bytes(FILM))
    images = find_images(tmp_path)
    assert {stem: len(paths) for stem, paths in images.items()} == {"a": 1, "b": 1}
    np.testing.assert_array_equal(read_grey(images["b"][0]), GREY)
    assert [image_stem(name) for name in ("x/1.2.3.dcm", "1.2.3.dicom", "1.2.3")] == ["1.2.3"] * 3


def test_reading_png_does_not_import_pydicom(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), FILM)
    program = (
        "import sys, pathlib; from dwarf_cxr.data.images import read_grey; "
        f"read_grey(pathlib.Path({str(tmp_path / 'a.png')!r})); assert 'pydicom' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
