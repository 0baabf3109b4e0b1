"""Tiny encoders and a tiny prepared data set, so that a training takes a second."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from dwarf_cxr.config import (
    MethodSettings,
    ModelSettings,
    ObjectiveSettings,
    RunConfig,
    TrainingSettings,
    with_overrides,
)
from dwarf_cxr.data.coco import shape_to_coco
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.models.building import Trainable
from dwarf_cxr.models.outputs import ModelCard

FINDINGS = ("Mass", "Effusion", "Nodule")
PLACES = {"Mass": (20, 20), "Effusion": (44, 8), "Nodule": (6, 40)}
"""Upper left corner (x, y) of the square that each finding is, give or take a few pixels."""
SIZE = 64
WORDS = ("mass", "effusion", "nodule", "round", "opacity", "fluid", "around", "the", "lungs")


def write_vit(folder: Path, *, layers: int = 2) -> Path:
    """A random ViT of 32 numbers a token, 16 tokens for 64 px, in Hugging Face layout."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(11)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=48,
        patch_size=16,
        image_size=SIZE,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def write_bert(folder: Path, words: Sequence[str] = WORDS) -> Path:
    """A random BERT of 24 numbers a token that knows `words`, in Hugging Face layout."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(12)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        max_position_embeddings=32,
        initializer_range=0.5,  # else all prompts get nearly the same vector
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return folder


def write_data(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 13,
    val: int = 8,
    texts: bool = False,
    sentences: Mapping[str, str] | None = None,
) -> PreparedData:
    """Films with a bright square per present finding, prepared at 64 px.

    The second training film's first finding is present without a region, and the third training
    film's last finding was never assessed. With `texts` all but every fifth film have a text,
    and some of them the same; `sentences` say a finding in words of their own.
    """
    words = dict(zip(FINDINGS, FINDINGS, strict=True)) if sentences is None else sentences
    rng = np.random.default_rng(seed)
    splits = ["train"] * train + ["val"] * val + ["test"] * 4
    radiographs = []
    for number, split in enumerate(splits):
        film = rng.integers(60, 100, (SIZE, SIZE), dtype=np.uint8)
        labels, regions = {}, []
        for index, finding in enumerate(FINDINGS):
            labels[finding] = (number >> index) % 2 == 1
            if not labels[finding]:
                continue
            x, y = (np.array(PLACES[finding]) + rng.integers(-3, 4, 2)).tolist()
            film[y : y + 14, x : x + 14] = 220
            regions.append(Region(finding, Box(float(x), float(y), x + 14.0, y + 14.0), "reader"))
        if number == 1:
            regions = [region for region in regions if region.finding != FINDINGS[0]]
        if number == 2:
            del labels[FINDINGS[-1]]
        present = [words[finding] for finding, there in labels.items() if there]
        text = " around ".join(present) or "the lungs"
        path = folder.with_name(folder.name + "-films") / f"film{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), film)
        radiographs.append(
            Radiograph(
                f"film{number}",
                f"patient{number}",
                path,
                labels,
                tuple(regions),
                None,
                split,
                text if texts and number % 5 else None,
            )
        )
    source = SourceSet("tiny", FINDINGS, tuple(radiographs), "generated", "CC0-1.0", "nobody")
    return prepare(source, folder, size=SIZE, workers=1, progress=lambda done, total: None)


def add_pseudo(data: PreparedData, folder: Path, places: Mapping[tuple[int, str], Box]) -> Path:
    """A copy of the data with a teacher's box at each (image, finding); any split is allowed."""
    shutil.copytree(data.folder, folder)
    path = folder / "regions.json"
    document = json.loads(path.read_text())
    category = {one["name"]: one["id"] for one in document["categories"]}
    for (index, finding), box in places.items():
        document["annotations"].append(
            {
                "id": len(document["annotations"]) + 1,
                "image_id": document["images"][index]["id"],
                "category_id": category[finding],
                **shape_to_coco(box),
                "kind": "pseudo",
                "annotator": "teacher",
                "teacher_dice": 0.5,
            }
        )
    path.write_text(json.dumps(document))
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["sha256"]["regions.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def settings(vit: Path, bert: Path, assignments: Sequence[str] = ()) -> MethodSettings:
    """A DWARF of a few thousand parameters, changed by `key=value` assignments."""
    small = MethodSettings(
        model=ModelSettings(
            image_encoder=str(vit),
            text_encoder=str(bert),
            frozen_layers=1,
            width=16,
            layers=1,
            attention_heads=2,
            feedforward=24,
        ),
        objective=ObjectiveSettings(map_size=8),
        training=TrainingSettings(epochs=4, batch_size=5, accelerator="cpu"),
    )
    return with_overrides(small, None, assignments)


def run_config(
    data: PreparedData, vit: Path, bert: Path, assignments: Sequence[str] = (), *, seed: int = 5
) -> RunConfig:
    """The configuration of a training of `settings` on `data`."""
    return RunConfig(
        method="dwarf",
        findings=FINDINGS,
        data=str(data.folder),
        data_fingerprint=data.fingerprint,
        seed=seed,
        settings=settings(vit, bert, assignments),
    )


def card_for(model: Trainable) -> ModelCard:
    """A card with made-up thresholds and prior."""
    names = model.findings
    prior = np.random.default_rng(3).random((len(names), model.image_size, model.image_size))
    return ModelCard(
        method="dwarf",
        data_name="tiny",
        data_fingerprint="0" * 64,
        splits_sha256="1" * 64,
        query_context=model.query_context,
        map_domain="unit",
        score_thresholds=dict.fromkeys(names, 0.25),
        map_thresholds=dict.fromkeys(names),
        prior_thresholds=dict.fromkeys(names, 0.5),
        train_prior=prior.astype(np.float32),
    )


def random_pixels(count: int, *, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Noise films, uint8 (count, size, size)."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=np.uint8)


class Trap:
    """An object that leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def booby_trap(pickled: Path, mark: Path) -> Path:
    """Write a pickle that creates `mark` when opened; returns `mark`."""
    pickled.write_bytes(pickle.dumps({"weight": Trap(mark)}))
    return mark
