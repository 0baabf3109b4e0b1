"""Evaluated runs of tiny random models on a few generated films, through the real doors."""

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from dwarf_cxr.config import MethodSettings, ModelSettings, RunConfig, save_config
from dwarf_cxr.data.prepare import prepare
from dwarf_cxr.data.records import Box, Radiograph, Region, SourceSet
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.evaluate import evaluate
from dwarf_cxr.models.checkpoint import save_model
from dwarf_cxr.models.outputs import ModelCard
from dwarf_cxr.models.vision_transformer import VisionTransformer
from dwarf_cxr.models.vlm import VisionLanguageClassifier

ODD = "<b>Mass</b> & $x$"
"""A name that would break markup and mathematical text."""
FINDINGS = (ODD, "Effusion", "Nodule")
SIZE, WIDTH, HEIGHT = 64, 96, 72
TEST_FILMS = 11
DRAWS = 40


def write_data(folder: Path, *, seed: int = 0) -> PreparedData:
    """Films wider than high; the last finding is never drawn, so that it has no example."""
    rng = np.random.default_rng(seed)
    splits = ["train"] * 3 + ["val"] * 2 + ["test"] * TEST_FILMS
    radiographs = []
    for number, split in enumerate(splits):
        film = rng.integers(60, 100, (HEIGHT, WIDTH), dtype=np.uint8)
        labels = {name: (number >> index) % 2 == 1 for index, name in enumerate(FINDINGS)}
        regions = []
        for index, name in enumerate(FINDINGS[:2]):
            if labels[name]:
                x, y = map(float, rng.integers(5, 50, 2))
                film[int(y) : int(y) + 14, int(x) : int(x) + 20] = 200 + 20 * index
                regions.append(Region(name, Box(x, y, x + 20, y + 14)))
        path = folder.with_name(f"{folder.name}-films") / f"film{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), film)
        radiographs.append(
            Radiograph(
                f"film{number}", f"patient{number}", path, labels, tuple(regions), None, split
            )
        )
    source = SourceSet("made <up>", FINDINGS, tuple(radiographs), "generated", "CC0-1.0", "nobody")
    return prepare(source, folder, size=SIZE, workers=1, progress=lambda done, total: None)


def tiny_model(
    data: PreparedData,
    *,
    seed: int = 0,
    method: str = "dwarf",
    findings: Sequence[str] = FINDINGS,
    threshold: float | None = 0.5,
) -> VisionLanguageClassifier:
    """A random model with a card; `dwarf-prior` gets a prior head."""
    torch.manual_seed(seed)
    encoder = VisionTransformer(
        {
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "patch_size": 16,
            "image_size": SIZE,
        }
    )
    model = VisionLanguageClassifier(
        settings_for(method).model,
        encoder,
        findings,
        torch.randn(len(findings), 24),
        SIZE,
        torch.Generator().manual_seed(seed),
    )
    prior = np.random.default_rng(3).random((len(findings), SIZE, SIZE)).astype(np.float32)
    model.card = ModelCard(
        method=method,
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        splits_sha256="1" * 64,
        query_context="isolated",
        map_domain="unit",
        score_thresholds=dict.fromkeys(findings, threshold),
        map_thresholds=dict.fromkeys(findings, threshold),
        prior_thresholds=dict.fromkeys(findings, threshold),
        train_prior=prior,
    )
    return model.eval()


def settings_for(method: str) -> MethodSettings:
    head = "prior" if method == "dwarf-prior" else "linear"
    return MethodSettings(
        model=ModelSettings(
            image_encoder="vit-b16",
            width=16,
            layers=1,
            attention_heads=2,
            feedforward=24,
            head=head,
        )
    )


def write_run(
    folder: Path,
    data: PreparedData,
    *,
    seed: int = 0,
    method: str = "dwarf",
    findings: Sequence[str] = FINDINGS,
    threshold: float | None = 0.5,
    evaluated: bool = True,
) -> Path:
    """A run folder: config, model, history and, if asked, its evaluation on the test split."""
    model = tiny_model(data, seed=seed, method=method, findings=findings, threshold=threshold)
    save_model(model, folder / "model")
    config = RunConfig(
        method=method,
        findings=tuple(findings),
        data=str(data.folder),
        data_fingerprint=data.fingerprint,
        seed=seed,
        settings=settings_for(method),
        versions={"torch": "9.9.9"},
    )
    save_config(config, folder / "config.yaml")
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "step", "seconds", "loss", "val_auc", "val_dice", "best"])
        writer.writerow([1, 4, 31.5, 0.9, 0.5, "", 1])
        writer.writerow([2, 8, 62.5, 0.7, 0.6, 0.2, 1])
        writer.writerow([3, 12, 94.0, 0.6, 0.5, 0.1, 0])
    if evaluated:
        evaluate(model, data, split="test", out=folder / "eval-test", draws=DRAWS, seed=seed)
    return folder
