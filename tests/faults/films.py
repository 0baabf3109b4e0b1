"""A small set of films as CSV tables, in every kind of file, prepared; and what damages it."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dwarf_cxr.data.store import PreparedData
from tests import dicom_files as dicom
from tests.faults.fault import done, refused

SIZE = 48
"""Of films and of prepared images, so that nothing is resized."""
FILMS = ("film0.png", "film1.jpg", "film2.dcm", "film3.png", "film4.png", "film5.png")
FINDINGS = ("Mass", "Edema")
IMAGES = """image_id,patient_id,path,split,Mass,Edema
film0,patient0,film0.png,train,1,0
film1,patient1,film1.jpg,train,0,1
film2,patient2,film2.dcm,val,1,0
film3,patient3,film3.png,val,0,1
film4,patient4,film4.png,test,1,0
film5,patient5,film5.png,test,0,1
"""
REGIONS = """image_id,finding,x1,y1,x2,y2
film0,Mass,4,6,20,18
film4,Mass,10,10,30,25.5
"""


def noise(seed: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    """A film of 8 bits, smooth enough for a JPEG to be large."""
    return (dicom.film(height, width, seed=seed) >> 4).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """The pixels as PNG."""
    return _encoded(Image.fromarray(pixels), "PNG")


def jpeg(pixels: np.ndarray) -> bytes:
    """The pixels as JPEG."""
    return _encoded(Image.fromarray(pixels), "JPEG")


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def write_films(root: Path) -> Path:
    """The set of `IMAGES` and `REGIONS` in the folder `root`."""
    root.mkdir()
    for number, name in enumerate(FILMS):
        pixels = noise(number)
        content = {
            ".png": lambda pixels=pixels: png(pixels),
            ".jpg": lambda pixels=pixels: jpeg(pixels),
            ".dcm": lambda number=number: dicom.dicom_bytes(dicom.film(SIZE, SIZE, seed=number)),
        }[Path(name).suffix]()
        (root / name).write_bytes(content)
    (root / "images.csv").write_text(IMAGES, encoding="utf-8")
    (root / "regions.csv").write_text(REGIONS, encoding="utf-8")
    return root


def prepare(root: Path, out: Path, *options: str) -> tuple[str, PreparedData]:
    """Prepare the set with the command; what it printed, and the data."""
    said = done("data", "prepare", "csv", "--root", root, "--out", out, "--size", SIZE, *options)
    return said, PreparedData.open(out)


def refuse_prepared(
    place: Path,
    damage: Callable[[Path], object],
    *options: str,
    names: Sequence[str],
    remedy: str,
) -> str:
    """Prepare the whole set, damage it, and have it refused with the earlier data in force."""
    root, out = write_films(place / "films"), place / "data"
    prepare(root, out)
    damage(root)
    return refuse_again(root, out, *options, names=names, remedy=remedy)


def refuse_again(root: Path, out: Path, *options: str, names: Sequence[str], remedy: str) -> str:
    """Have a damaged set refused, and the data of `out` left as they are."""
    command = ("data", "prepare", "csv", "--root", root, "--out", out, "--size", SIZE, *options)
    return refused(*command, names=names, remedy=remedy, untouched=out)


def change(file: Path, before: str, after: str) -> None:
    """Change a text that is there once."""
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1, (before, text)
    file.write_text(text.replace(before, after), encoding="utf-8")
