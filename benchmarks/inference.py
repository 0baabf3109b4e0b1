"""What an answer costs: `python benchmarks/inference.py [--run RUN --data DATA] [--rounds 7]`.

One film and a batch of 8 through a ViT-B/16 of random weights: PyTorch in fp32 and in bf16, ONNX
Runtime in fp32 and in int8. Rounds are interleaved, one thread, the smallest process CPU time
counts; ratios are to fp32 in PyTorch. The matrix products alone, without all else, say what a form
could reach on this processor at best. With --run and --data, a trained model's scores on the test
split in each form: change of macro AUC and Dice. With --films, how busy `dwarf predict` keeps the
cores. With pytorch-grad-cam (`pip install --no-deps grad-cam ttach`), its cost per map.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from torch import nn

from dwarf_cxr.config import ModelSettings
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation.evaluate import evaluate
from dwarf_cxr.export.onnx import export_onnx
from dwarf_cxr.findings import CHESTX_DET_13
from dwarf_cxr.models.checkpoint import load_model, save_model
from dwarf_cxr.models.onnx_classifier import open_onnx
from dwarf_cxr.models.outputs import ModelCard
from dwarf_cxr.models.predicting import predicting_at
from dwarf_cxr.models.vlm import VisionLanguageClassifier, build_classifier

TARGETS = {"bf16": 2.5, "ONNX int8": 5.0}
INTEGER_PRODUCTS = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger")
AUC_CHANGE, DICE_CHANGE = 0.002, 0.005


def main() -> None:
    """Print one line per comparison."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--run", type=Path)
    words.add_argument("--data", type=Path)
    words.add_argument("--films", type=int, default=0, help="films that `dwarf predict` is given")
    given = words.parse_args()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = vit()
        save_model(model, Path(folder, "model"))
        for line in export_onnx(Path(folder, "model"), Path(folder, "m.onnx"), int8=True):
            print(line.removeprefix(folder))
        for films in (1, 8):
            best = ratios(model, Path(folder), films, given.rounds)
            products(model, Path(folder), films, given.rounds, best["fp32"])
        if given.run is not None and given.data is not None:
            changes(given.run, given.data, Path(folder))
        torch.set_num_threads(threads)
        if given.films:
            run = given.run or Path(folder, "model")
            busy(run, Path(folder), given.films)
        torch.set_num_threads(1)
        grad_cam(model, given.rounds)  # last: its stand-in for torchvision would confuse exporting


def vit() -> VisionLanguageClassifier:
    """The paper's size: ViT-B/16, 4 decoder layers, 13 findings."""
    settings = ModelSettings(
        image_encoder="vit-b16", width=256, layers=4, attention_heads=4, feedforward=1024
    )
    model = build_classifier(settings, CHESTX_DET_13, 224, 0).eval()
    nothing = dict.fromkeys(model.findings)
    prior = np.zeros((len(model.findings), 224, 224), dtype=np.float32)
    model.card = ModelCard(
        "dwarf", "none", "0" * 64, "0" * 64, "isolated", "unit", nothing, nothing, nothing, prior
    )
    return model


def ratios(
    model: VisionLanguageClassifier, folder: Path, films: int, rounds: int
) -> dict[str, float]:
    """CPU time of an answer in every form, in seconds."""
    pixels = np.random.default_rng(0).integers(0, 256, (films, 224, 224), dtype=np.uint8)
    whole, small = open_onnx(folder / "m.onnx"), open_onnx(folder / "m-int8.onnx")

    def bf16() -> object:
        with predicting_at("bf16", model):
            return model.predict(pixels)

    forms: dict[str, Callable[[], object]] = {
        "fp32": lambda: model.predict(pixels),
        "bf16": bf16,
        "ONNX fp32": lambda: whole.predict(pixels),
        "ONNX int8": lambda: small.predict(pixels),
    }
    best = smallest(forms, rounds)
    for name, seconds in best.items():
        ratio = best["fp32"] / seconds
        target = f" (target {TARGETS[name]}x)" if films == 1 and name in TARGETS else ""
        print(f"batch {films}, {name:<9} {seconds * 1e3:7.0f} ms CPU, {ratio:.2f}x{target}")
    return best


def products(
    model: VisionLanguageClassifier, folder: Path, films: int, rounds: int, whole: float
) -> None:
    """The linear layers' products alone; `whole` are the seconds of an answer in fp32."""
    pixels = np.random.default_rng(0).integers(0, 256, (films, 224, 224), dtype=np.uint8)
    shapes: list[tuple[torch.Size, torch.Size]] = []

    def note(layer: nn.Module, given: tuple[torch.Tensor, ...], answer: torch.Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        shapes.append((given[0].shape, layer.weight.shape))

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    model.predict(pixels)
    for hook in hooks:
        hook.remove()

    def multiply(dtype: torch.dtype) -> Callable[[], object]:
        pairs = [(torch.randn(a, dtype=dtype), torch.randn(b, dtype=dtype)) for a, b in shapes]
        return lambda: [nn.functional.linear(a, b) for a, b in pairs]

    with torch.inference_mode():
        kinds = {"fp32": multiply(torch.float32), "bf16": multiply(torch.bfloat16)}
        found = smallest(kinds, rounds)
    found["ONNX int8"] = integer_products(folder / "m-int8.onnx", pixels, rounds)
    for name, seconds in found.items():
        print(
            f"batch {films}, {name:<9} {seconds * 1e3:7.0f} ms, {len(shapes)} linear layers alone: "
            f"at best {whole / seconds:.2f}x"
        )


def integer_products(file: Path, pixels: np.ndarray, rounds: int) -> float:
    """Seconds that ONNX Runtime spends in products of integers, by its own profile."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(file.with_suffix(""))
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    for _ in range(rounds + 1):
        session.run(None, {"pixels": pixels})
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes: dict[str, list[int]] = {}
    for event in events:
        if event.get("args", {}).get("op_name") in INTEGER_PRODUCTS:
            nodes.setdefault(event["name"], []).append(event["dur"])
    return sum(map(min, nodes.values())) / 1e6


def smallest(forms: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The smallest process CPU time of each, in seconds, rounds interleaved, after one to warm."""
    best = dict.fromkeys(forms, float("inf"))
    for number in range(rounds + 1):
        for name, work in forms.items():
            started = time.process_time()
            work()
            if number:
                best[name] = min(best[name], time.process_time() - started)
    return best


def changes(run: Path, data: Path, folder: Path) -> None:
    """How macro AUC and Dice of a trained model change with the form."""
    export_onnx(run, folder / "run.onnx", data=data, int8=True)
    model, prepared = load_model(run), PreparedData.open(data)
    found = {}
    for name in ("fp32", "bf16", "ONNX fp32", "ONNX int8"):
        judge = {
            "ONNX fp32": lambda: open_onnx(folder / "run.onnx"),
            "ONNX int8": lambda: open_onnx(folder / "run-int8.onnx"),
        }.get(name, lambda: model)()
        metrics = evaluate(
            judge,
            prepared,
            split="test",
            out=folder / "evaluation",
            draws=0,
            precision="bf16" if name == "bf16" else "fp32",
        )
        found[name] = [metrics["macro"][metric]["value"] for metric in ("auc", "dice")]
        auc, dice = (ours - first for ours, first in zip(found[name], found["fp32"], strict=True))
        met = abs(auc) <= AUC_CHANGE and abs(dice) <= DICE_CHANGE
        print(f"{run.name}, {name:<9} AUC {auc:+.4f}, Dice {dice:+.4f}{'' if met else ' TOO FAR'}")


def busy(run: Path, folder: Path, films: int) -> None:
    """CPU time over wall time of `dwarf predict` on all cores; memory for a quarter and for all."""
    generator, paths = np.random.default_rng(0), []
    (folder / "films").mkdir()
    for number in range(films):
        paths.append(folder / "films" / f"{number}.png")
        small = generator.integers(0, 256, (64, 56), dtype=np.uint8)
        cv2.imwrite(str(paths[-1]), cv2.resize(small, (896, 1024), interpolation=cv2.INTER_CUBIC))
    cores = len(os.sched_getaffinity(0))
    peaks = []
    for count in (max(1, films // 4), films):
        words = [sys.executable, "-m", "dwarf_cxr.cli", "predict", str(run)]
        words += [*map(str, paths[:count]), "--out", str(folder / f"answers-{count}")]
        started = time.perf_counter()
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        if status:
            raise SystemExit("dwarf predict failed")
        peaks.append(used.ru_maxrss / 1024)
    print(
        f"predict, {films} films of 1024 px, with its start: {wall / films * 1e3:.0f} ms a film, "
        f"{(used.ru_utime + used.ru_stime) / wall / cores:.0%} of {cores} cores (load with it: "
        f"{os.getloadavg()[0]:.1f}); peak memory {peaks[0]:.0f} MiB for a quarter of them, "
        f"{peaks[1]:.0f} MiB for all"
    )


def grad_cam(model: VisionLanguageClassifier, rounds: int) -> None:
    """Grad-CAM by pytorch-grad-cam, a map at a time, against all of the model's own maps."""
    if "torchvision" not in sys.modules:
        # it imports these for drawing and boxes, which are not used here
        for name, parts in {
            "torchvision": (),
            "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
            "torchvision.transforms.functional": ("resize",),
        }.items():
            module = types.ModuleType(name)
            for part in parts:
                setattr(module, part, None)
            sys.modules.setdefault(name, module)
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ModuleNotFoundError as fault:
        print(f"pytorch-grad-cam: left out ({fault})")
        return

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images[:, 0]).logits

    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224), dtype=np.uint8)
    images = torch.from_numpy(pixels)[:, None].float() / 255
    layer = model.image_encoder.vit.layernorm
    findings = len(model.findings)

    def square(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, -196:].transpose(1, 2).unflatten(-1, (14, 14))

    with GradCAM(Logits().eval(), [layer], reshape_transform=square) as cam:
        best = smallest(
            {
                "own": lambda: model.predict(pixels),
                "grad-cam": lambda: cam(images, [ClassifierOutputTarget(0)]),
            },
            rounds,
        )
    own, theirs = best["own"], best["grad-cam"]
    print(
        f"pytorch-grad-cam: {theirs * 1e3:.0f} ms CPU for one map, {theirs / own:.1f}x an answer "
        f"with the scores and maps of all {findings} findings ({own * 1e3:.0f} ms); for maps of "
        f"all, one by one, {theirs * findings / own:.0f}x"
    )


if __name__ == "__main__":
    main()
