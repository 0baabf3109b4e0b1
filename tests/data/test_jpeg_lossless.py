import struct
import time

import numpy as np
import pytest

from dwarf_cxr.data.jpeg_lossless import FrameHeader, decode_lossless_jpeg, frame_header
from tests.dicom_files import film, lossless_jpeg


def noise(height: int, width: int, bits: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**bits, (height, width)).astype(np.uint16)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("bits", [2, 8, 12, 15])
def test_values_come_back(predictor, bits):
    values = noise(9, 14, bits)
    stream = lossless_jpeg(values, bits, predictor=predictor)
    np.testing.assert_array_equal(decode_lossless_jpeg(stream), values)


@pytest.mark.parametrize("predictor", [1, 4, 7])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (30, 3)])
def test_narrow_images_come_back(predictor, shape):
    values = noise(*shape, 12)
    stream = lossless_jpeg(values, 12, predictor=predictor)
    np.testing.assert_array_equal(decode_lossless_jpeg(stream), values)


def test_differences_of_16_bits_come_back():
    values = np.array([[0, 65535, 0, 32768, 0, 40000]], np.uint16)
    np.testing.assert_array_equal(decode_lossless_jpeg(lossless_jpeg(values, 16)), values)


def test_streams_longer_than_a_chunk_come_back():
    values = noise(300, 420, 14)
    stream = lossless_jpeg(values, 14)
    assert len(stream) > 2 * 131072
    np.testing.assert_array_equal(decode_lossless_jpeg(stream), values)


def test_a_stream_worked_by_hand():
    # 2×2 of 8 bits; codes: 0 for category 0, 10 for 1, 110 for 2
    # 128 (difference 0), 129 (+1), above them 127 (-1), 129 (+2): 0, 10 1, 10 0, 110 10
    scan = 0b0_101_100_1_1010_1111.to_bytes(2, "big")
    table = b"\x00" + bytes([1, 1, 1, *[0] * 13]) + bytes([0, 1, 2])
    stream = (
        b"\xff\xd8"
        + b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table
        + b"\xff\xc3" + struct.pack(">HBHHBBBB", 11, 8, 2, 2, 1, 1, 0x11, 0)
        + b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
        + scan + b"\xff\xd9"
    )  # fmt: skip
    np.testing.assert_array_equal(decode_lossless_jpeg(stream), [[128, 129], [127, 129]])
    assert frame_header(stream) == FrameHeader(0xC3, 8, 2, 2, 1)


def test_restarts_begin_anew():
    top, bottom = noise(4, 6, 12), noise(4, 6, 12)[::-1]
    first, second = (lossless_jpeg(half, 12) for half in (top, bottom))
    scan = first.index(b"\xff\xda")
    head = first[:scan].replace(struct.pack(">HH", 4, 6), struct.pack(">HH", 8, 6))
    stream = head + b"\xff\xdd\x00\x04" + struct.pack(">H", 24) + first[scan:-2]
    stream += b"\xff\xd0" + second[scan + 10 :]
    np.testing.assert_array_equal(decode_lossless_jpeg(stream), np.vstack([top, bottom]))


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (11, 6)])
@pytest.mark.parametrize("rows", [1, 4])
def test_restarts_within_any_shape_come_back(predictor, shape, rows):
    values = noise(*shape, 12)
    stream = lossless_jpeg(values, 12, predictor=predictor, restart_rows=rows)
    np.testing.assert_array_equal(decode_lossless_jpeg(stream), values)


@pytest.mark.parametrize("shape", [(400, 30), (40, 2000)])
def test_a_restart_in_every_row_costs_little(shape):
    values = noise(*shape, 12)
    stream = lossless_jpeg(values, 12, restart_rows=1)
    started = time.process_time()
    np.testing.assert_array_equal(decode_lossless_jpeg(stream), values)
    # 2 s and more where every part was taken for a whole chunk
    assert time.process_time() - started < 1


@pytest.mark.parametrize("kept", [1, 20, 60, 200, 1000])
def test_cut_streams_are_refused(kept):
    with pytest.raises((ValueError, struct.error)):
        decode_lossless_jpeg(lossless_jpeg(film(), 12)[:kept])


def test_what_is_not_lossless_is_refused():
    stream = lossless_jpeg(film(), 12)
    with pytest.raises(ValueError, match="not lossless"):
        decode_lossless_jpeg(stream.replace(b"\xff\xc3", b"\xff\xc0"))
    with pytest.raises(ValueError, match="not a JPEG"):
        decode_lossless_jpeg(b"hello")
