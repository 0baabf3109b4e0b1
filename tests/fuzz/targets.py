"""What is fuzzed: a reader, given any bytes, returns or raises a DwarfError."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from dwarf_cxr.data.check import check
from dwarf_cxr.data.coco import read_coco
from dwarf_cxr.data.dicom import decode_dicom
from dwarf_cxr.data.images import decode_grey
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.data.table import read_csv
from dwarf_cxr.errors import DwarfError
from dwarf_cxr.models.checkpoint import load_model, save_model
from dwarf_cxr.models.vlm import build_classifier
from dwarf_cxr.weights.reading import open_foreign
from tests import dicom_files as dicom
from tests.data.fuzz_images import whole_files
from tests.faults.films import FILMS, IMAGES, REGIONS, prepare, write_films
from tests.faults.runs import encoders
from tests.tiny import FINDINGS, SIZE, card_for, settings


@dataclass(frozen=True)
class Target:
    """A reader and whole inputs to begin with."""

    name: str
    seeds: Callable[[Path], list[bytes]]
    """Made in an empty folder, which `read` then gets too."""
    read: Callable[[Path, bytes], object]


def survives(target: Target, folder: Path, content: bytes) -> bool:
    """Whether a reader took an input (or refused it, False); any other exception escapes."""
    try:
        target.read(folder, content)
    except DwarfError:
        return False
    return True


def _images(folder: Path) -> list[bytes]:
    return [one for one in whole_files() if one[128:132] != b"DICM"]


def _dicom(folder: Path) -> list[bytes]:
    small = dicom.dicom_bytes(dicom.film(6, 5, bits=8), window=dicom.Window(128, 256))
    return [small, *(one for one in whole_files() if one[128:132] == b"DICM")]


def _films(folder: Path) -> list[bytes]:
    write_films(folder / "films")
    return []


def _images_csv(folder: Path) -> list[bytes]:
    return [
        *_films(folder),
        IMAGES.encode(),
        b"\xef\xbb\xbf" + IMAGES.replace("\n", "\r\n").encode(),
    ]


def _read_images_csv(folder: Path, content: bytes) -> object:
    (folder / "films" / "images.csv").write_bytes(content)
    return read_csv(folder / "films")


def _regions_csv(folder: Path) -> list[bytes]:
    return [*_films(folder), REGIONS.encode()]


def _read_regions_csv(folder: Path, content: bytes) -> object:
    (folder / "films" / "regions.csv").write_bytes(content)
    return read_csv(folder / "films")


COCO = {
    "images": [
        {"id": 1, "file_name": FILMS[0], "width": 9, "height": 7, "patient_id": "p", "labels": {}}
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1.5, 3, 2], "kind": "expert"},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]]},
        {
            "id": 3,
            "image_id": 1,
            "category_id": 1,
            "segmentation": {"size": [7, 9], "counts": [3, 5, 55]},
        },
        {
            "id": 4,
            "image_id": 1,
            "category_id": 1,
            "segmentation": {"size": [7, 9], "counts": "35g1"},
        },
    ],
    "categories": [{"id": 1, "name": "Mass"}],
}


def _coco(folder: Path) -> list[bytes]:
    return [*_films(folder), json.dumps(COCO).encode()]


def _read_coco(folder: Path, content: bytes) -> object:
    (folder / "films" / "annotations.json").write_bytes(content)
    return read_coco(folder / "films" / "annotations.json")


def _data(folder: Path, name: str) -> list[bytes]:
    _, data = prepare(write_films(folder / "films"), folder / "data")
    return [(data.folder / name).read_bytes()]


def _read_data(folder: Path, name: str, content: bytes) -> object:
    """Open and check the DATA folder, whose hashes are those of what is there."""
    (folder / "data" / name).write_bytes(content)
    if name != "dataset.json":
        file = folder / "data" / "dataset.json"
        dataset = json.loads(file.read_bytes())
        dataset["sha256"][name] = sha256(content).hexdigest()
        file.write_text(json.dumps(dataset))
    check(folder / "data")
    return PreparedData.open(folder / "data")


def _model(folder: Path, name: str) -> list[bytes]:
    chosen = settings(encoders() / "vit", encoders() / "bert")
    model = build_classifier(chosen.model, FINDINGS, SIZE, 0)
    model.card = card_for(model)
    save_model(model, folder / "model")
    return [(folder / "model" / name).read_bytes()]


def _read_model(folder: Path, name: str, content: bytes) -> object:
    """Load the model, whose hash is that of what is there."""
    (folder / "model" / name).write_bytes(content)
    if name != "config.json":
        file = folder / "model" / "config.json"
        config = json.loads(file.read_bytes())
        config["sha256"] = sha256(content).hexdigest()
        file.write_text(json.dumps(config))
    return load_model(folder / "model")


def _foreign(folder: Path) -> list[bytes]:
    import torch

    torch.save({"model": {"weight": torch.ones(2, 3)}}, folder / "foreign.pt")
    return [(folder / "foreign.pt").read_bytes()]


def _read_foreign(folder: Path, content: bytes) -> object:
    (folder / "foreign.pt").write_bytes(content)
    return open_foreign(folder / "foreign.pt", trust=False)


TARGETS = (
    Target("images", _images, lambda folder, content: decode_grey(content, "FILE")),
    Target("dicom", _dicom, lambda folder, content: decode_dicom(content, "FILE")),
    Target("images.csv", _images_csv, _read_images_csv),
    Target("regions.csv", _regions_csv, _read_regions_csv),
    Target("coco", _coco, _read_coco),
    *(
        Target(
            f"data/{name}",
            lambda folder, name=name: _data(folder, name),
            lambda folder, content, name=name: _read_data(folder, name, content),
        )
        for name in ("dataset.json", "images.csv", "regions.json")
    ),
    *(
        Target(
            f"model/{name}",
            lambda folder, name=name: _model(folder, name),
            lambda folder, content, name=name: _read_model(folder, name, content),
        )
        for name in ("config.json", "model.safetensors")
    ),
    Target("foreign checkpoint", _foreign, _read_foreign),
)
