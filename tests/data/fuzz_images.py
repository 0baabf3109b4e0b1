"""Reads damaged image files, one after another, in a process of its own.

`python -m tests.data.fuzz_images FIRST COUNT` damages small whole files at random (seeds FIRST to
FIRST + COUNT - 1) and reads each. Prints the outcomes as JSON; ends at once where reading did
anything but return a film or raise an ImageError. Standard error then ends with the seed.
"""

import io
import json
import resource
import signal
import sys
import time
from collections import Counter

import numpy as np
from PIL import Image

from dwarf_cxr.data.images import decode_grey
from dwarf_cxr.errors import ImageError
from tests import dicom_files as dicom

SECONDS_A_FILE = 10
ADDRESS_SPACE = 4 << 30
"""Bytes; libraries alone map more than they use, so the peak that counts is measured apart."""


def whole_files() -> list[bytes]:
    """One small film in many dresses."""
    film = dicom.film(48, 40)
    grey = Image.fromarray((film >> 4).astype(np.uint8))
    files = []
    for kind, mode, options in (
        ("PNG", "L", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"optimize": True}),
        ("PNG", "1", {}),
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
    ):
        stream = io.BytesIO()
        grey.convert(mode).save(stream, kind, **options)
        files.append(stream.getvalue())
    stream = io.BytesIO()
    Image.fromarray(film).save(stream, "PNG")
    files.append(stream.getvalue())
    window = dicom.Window(2048, 4096)
    for syntax in (*dicom.LOSSLESS, dicom.JPEG_LOSSLESS):
        files.append(dicom.dicom_bytes(film, transfer_syntax=syntax, window=window))
    files.append(
        dicom.dicom_bytes(film, transfer_syntax=dicom.JPEG_LOSSLESS, restart_rows=1, window=window)
    )
    files.append(
        dicom.dicom_bytes(
            film >> 4,
            bits_stored=8,
            bits_allocated=8,
            transfer_syntax=dicom.JPEG_BASELINE,
            voi_lut=dicom.Lut(range(256), 0, 8),
            padding=0,
            padding_limit=3,
        )
    )
    return files


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """`whole` with one to six damages: bytes changed, cut out, doubled, zeroed, or cut off."""
    content = bytearray(whole)
    for _ in range(rng.integers(1, 7)):
        if len(content) < 2:
            break
        # half of the damages in the last part, where the pixels are
        start = 0 if rng.random() < 0.5 else len(content) // 3
        place = int(rng.integers(start, len(content)))
        length = int(min(rng.geometric(0.1), len(content) - place))
        match rng.integers(7):
            case 0 | 1 | 2:
                content[place] = rng.integers(256)
            case 3:
                content[place] ^= 1 << rng.integers(8)
            case 4:
                del content[place : place + length]
            case 5:
                content[place:place] = content[place : place + length]
            case _:
                content[place : place + length] = rng.choice([0, 255]).astype("u1").tobytes() * (
                    length
                )
    if rng.random() < 0.15:
        del content[int(rng.integers(len(content) + 1)) :]
    return bytes(content)


def main(first: int, count: int) -> None:
    """Read `count` damaged files."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, also within C code
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    files = whole_files()
    for content in files:
        decode_grey(content, "a whole file")
    outcomes: Counter[str] = Counter()
    slowest, slowest_seed = 0.0, first
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        content = damaged(files[seed % len(files)], rng)
        print(seed, file=sys.stderr, flush=True)
        signal.alarm(SECONDS_A_FILE)
        started = time.process_time()
        try:
            grey = decode_grey(content, "FILE")
            assert grey.dtype == np.uint8
            assert grey.ndim == 2
            outcomes["read"] += 1
        except ImageError as fault:
            outcomes["refused" if str(fault).startswith("FILE: ") else "unnamed"] += 1
        slowest, slowest_seed = max((slowest, slowest_seed), (time.process_time() - started, seed))
        signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record = {"slowest_s": slowest, "slowest_seed": slowest_seed, "peak_mb": peak / 1024}
    print(json.dumps({**outcomes, **record}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
