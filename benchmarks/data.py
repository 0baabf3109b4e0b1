"""Preparing, opening, checking and reading data: `python benchmarks/data.py`.

Prints what reading a cached image costs beside decoding it, and how much memory a data set takes
per row, beside its records. `--rows 225000` measures as many as the largest public sets have (it
needs a gigabyte of disk and some minutes). Tiny files stand for the radiographs: memory depends on
the rows, not on the pixels, which are never all in memory.
"""

import argparse
import gc
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
from made_up import made_up, noise
from metrics import resident, restart_peak
from PIL import Image
from timing import Target, heading, in_turn, line

from dwarf_cxr.data.batches import RegionTargets, load_batch
from dwarf_cxr.data.check import check
from dwarf_cxr.data.images import decode_grey, resize
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.store import PreparedData

SIZE, CACHED, BATCH = 224, 2000, 32
FEW = 200
"""Images in MONAI's caches."""
LARGE = 24
"""Films that `all_cores` prepares."""
FINDINGS = tuple(f"Finding {number}" for number in range(14))
STEPS = ("prepare", "open", "check")


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 20_000])
    parser.add_argument("--measure", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure(chosen.measure, chosen.rows[0], chosen.folder)
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        cached_image(Path(folder))
        memory(Path(folder), chosen.rows)


def cached_image(folder: Path) -> None:
    """Reading images in random order, as training does, against decoding and resizing them."""
    generator = np.random.default_rng(0)
    data = cache(folder / "cache", generator)
    targets = RegionTargets.of(data, np.arange(CACHED), 56)
    order = np.array_split(generator.permutation(CACHED), CACHED // BATCH)

    def pixels() -> None:
        mapped = np.memmap(data.pixels.filename, np.uint8, "r", shape=data.pixels.shape)
        for chosen in order:
            np.ascontiguousarray(mapped[chosen])

    def batches() -> None:
        for chosen in order:
            load_batch(data, targets, chosen, range(len(data.findings)))

    reading, whole = (seconds / CACHED for seconds in in_turn([pixels, batches], 5))
    heading(f"Reading (numpy {np.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__})")
    line(
        f"a cached image of {SIZE} px, random order in batches of {BATCH}",
        f"{reading * 1e6:.1f} µs",
        f"with labels and regions of {len(data.findings)} findings {whole * 1e6:.1f} µs",
        reading * 1e6,
        " µs",
        Target(20, at_most=True),
    )
    for width, height, suffix in (
        (1024, 1024, "png"),
        (1024, 1024, "jpg"),
        (2048, 2500, "png"),
        (2048, 2500, "jpg"),
    ):
        content = cv2.imencode(f".{suffix}", film(generator, width, height))[1].tobytes()
        ways = [partial(decode, content), partial(decode_naively, content), pixels]
        ours, naive, reading = in_turn(ways, 5)
        reading /= CACHED
        what = f"{width}×{height} {suffix} of {len(content) / 1e3:.0f} kB"
        pillow = f"Pillow RGB + bicubic {naive * 1e3:.1f} ms"
        large = width > 1024
        line(
            f"reading it from the cache instead of decoding a {what}",
            f"{reading * 1e6:.1f} µs",
            pillow,
            naive / reading,
            "x",
            Target(1000) if large else None,
        )
        line(
            f"preparing a {what}",
            f"{ours * 1e3:.1f} ms",
            pillow,
            naive / ours,
        )
    all_cores(folder, generator)
    monai(folder, data, order, pixels)


def all_cores(folder: Path, generator: np.random.Generator) -> None:
    """Preparing a folder of films, on all cores, against a plain loop of Pillow; by the clock."""
    films = folder / "large"
    films.mkdir()
    radiographs = []
    for number in range(LARGE):
        path = films / f"{number}.jpg"
        cv2.imwrite(str(path), film(generator, 2048, 2500))
        labels = {FINDINGS[0]: number % 2 == 0}
        split = ("train", "val", "test")[number % 3]
        radiographs.append(Radiograph(f"{number}", f"p{number}", path, labels, (), split=split))
    source = SourceSet("films", FINDINGS[:1], tuple(radiographs), "generated", "CC0-1.0", "nobody")
    rounds = iter(range(10))

    def ours() -> None:
        out = folder / f"prepared-{next(rounds)}"
        prepare(source, out, size=SIZE, progress=lambda done, total: None)

    cores = os.cpu_count() or 1

    def naive_on_one(one: Radiograph) -> None:
        decode_naively(one.path.read_bytes())

    def naive() -> None:
        for one in radiographs:
            naive_on_one(one)

    def naive_on_all() -> None:
        with ThreadPoolExecutor(cores) as threads:  # Pillow decodes without the interpreter's lock
            list(threads.map(naive_on_one, radiographs))

    fast, slow, shared = in_turn([ours, naive, naive_on_all], 2, time.perf_counter)
    line(
        f"`dwarf data prepare`, {LARGE} films of 2048×2500 jpg, {cores} cores, by the clock",
        f"{fast / LARGE * 1e3:.1f} ms a film, with hashes and checks",
        f"Pillow RGB + bicubic, a loop {slow / LARGE * 1e3:.1f} ms",
        slow / fast,
        "x",
        Target(3),
    )
    line(
        "the same",
        f"{fast / LARGE * 1e3:.1f} ms a film",
        f"Pillow RGB + bicubic, on {cores} cores too {shared / LARGE * 1e3:.1f} ms",
        shared / fast,
    )


def monai(
    folder: Path, data: PreparedData, order: list[np.ndarray], pixels: Callable[[], None]
) -> None:
    """MONAI's caches of some of the images against `pixels`, reading all in `order`."""
    if find_spec("monai") is None:
        print("| MONAI's caches | - | MONAI is not installed | - | - | - |")
        return
    import monai as peer
    from monai.data import CacheDataset, PersistentDataset

    few = [{"image": np.array(data.pixels[index])} for index in range(FEW)]
    caches = {
        "PersistentDataset": PersistentDataset(few, lambda item: item, folder / "monai"),
        "CacheDataset": CacheDataset(few, lambda item: item, progress=False),
    }
    for name, cached in caches.items():

        def read(cached: Sequence[dict[str, np.ndarray]] = cached) -> None:
            for chosen in order:
                np.stack([np.asarray(cached[int(index) % FEW]["image"]) for index in chosen])

        read()
        theirs, ours = (s / sum(map(len, order)) for s in in_turn([read, pixels], 3))
        line(
            "reading it from the cache",
            f"{ours * 1e6:.1f} µs, memory-mapped, all in the system's memory",
            f"MONAI {peer.__version__} {name} {theirs * 1e6:.1f} µs",
            theirs / ours,
        )


def decode(content: bytes) -> np.ndarray:
    """What preparing does with the bytes of a file."""
    return resize(decode_grey(content, "film"), SIZE)


def decode_naively(content: bytes) -> np.ndarray:
    """What a plain loader does: three channels at full size, then bicubic."""
    with Image.open(io.BytesIO(content)) as opened:
        return np.asarray(opened.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def film(generator: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Smooth shades with the grain of a detector, as hard to decode as a radiograph."""
    shades = cv2.resize(generator.random((12, 10)), (width, height), interpolation=cv2.INTER_CUBIC)
    grain = generator.normal(0, 2.5, (height, width))
    return np.clip(40 + 170 * shades + grain, 0, 255).astype(np.uint8)


def cache(folder: Path, generator: np.random.Generator) -> PreparedData:
    """An opened data set of noise with a region on every fourth image."""
    folder.mkdir()
    return made_up(
        folder,
        noise(folder / "pixels.u8", (CACHED, SIZE, SIZE), generator),
        np.ones((CACHED, 7), dtype=np.float32),
        FINDINGS[:7],
        {index: (index % 7,) for index in range(0, CACHED, 4)},
    )


def memory(folder: Path, counts: list[int]) -> None:
    """Peak memory of each step, in a process of its own, beyond what it starts with."""
    write_films(folder / "films", max(counts))
    for rows in counts:
        for step in STEPS:
            command = [sys.executable, __file__, "--measure", step, "--rows", str(rows)]
            done = subprocess.run(
                [*command, "--folder", str(folder)], capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout)
            print(
                f"{step} {rows:,} rows: {found['extra'] / 2**20:.0f} MB beside the records, "
                f"{found['extra'] / rows:,.0f} bytes a row; {found['seconds']:.1f} s "
                f"({found['seconds'] / rows * 1e6:.0f} µs a row)"
            )


def measure(step: str, rows: int, folder: Path) -> None:
    """Print the time and the peak memory of one step as JSON."""
    out = folder / f"data-{rows}"
    source = records(folder / "films", rows) if step == "prepare" else None
    gc.collect()
    restart_peak()
    before, start = resident("VmRSS"), time.perf_counter()
    if source is not None:
        prepare(source, out, size=8, progress=lambda done, total: None)
    elif step == "open":
        PreparedData.open(out)
    else:
        check(out)
    seconds, peak = time.perf_counter() - start, resident("VmHWM")
    print(json.dumps({"extra": peak - before, "seconds": seconds}))


def write_films(folder: Path, count: int) -> None:
    """`count` PNG files of 12×10 pixels, no two alike."""
    for number in range(count):
        path = film_path(folder, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (10, 12), dtype=np.uint8)
        lines = b"".join(b"\0" + line.tobytes() for line in pixels)
        header = struct.pack(">IIBBBBB", 12, 10, 8, 0, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b""))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def film_path(folder: Path, number: int) -> Path:
    """A path as long as those of the large public sets."""
    return folder / f"patient{number // 1000:05d}" / f"view{number:06d}_frontal.png"


def records(folder: Path, count: int) -> SourceSet:
    """Three films a patient, 14 findings of which most are assessed, a box on every fourth."""
    generator = np.random.default_rng(0)
    radiographs = []
    for number in range(count):
        present, assessed = generator.random(14) < 0.1, generator.random(14) < 0.9
        box = Box(1.5, 2.0, 6.5 + number % 5, 7.25)
        radiographs.append(
            Radiograph(
                image_id=f"{number:06d}",
                patient_id=f"p{number // 3:06d}",
                path=film_path(folder, number),
                labels={
                    finding: bool(present[column])
                    for column, finding in enumerate(FINDINGS)
                    if assessed[column]
                },
                regions=(Region(FINDINGS[number % 14], box, "reader 1"),) * (number % 4 == 0),
                split=("train", "train", "val", "test")[number // 3 % 4],
            )
        )
    return SourceSet("tiny films", FINDINGS, tuple(radiographs), "generated", "CC0-1.0", "nobody")


if __name__ == "__main__":
    main()
