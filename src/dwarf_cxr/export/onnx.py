"""A run's network as one ONNX file, written once it answers as PyTorch does; docs/inference.md."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.files import sha256_of, write_bytes
from dwarf_cxr.models.checkpoint import Model, load_model
from dwarf_cxr.models.class_attention import ClassAttentionClassifier
from dwarf_cxr.models.ham import HamClassifier
from dwarf_cxr.models.onnx_classifier import SUFFIX, OnnxClassifier, metadata_of, sealed
from dwarf_cxr.models.opening import weights_file
from dwarf_cxr.models.outputs import method_of
from dwarf_cxr.models.predicting import simplex_to_unit
from dwarf_cxr.models.vlm import VisionLanguageClassifier

Exportable = VisionLanguageClassifier | ClassAttentionClassifier | HamClassifier
OnnxPixels = Literal["uint8", "float32"]

PARITY = 1e-4
"""Largest difference of any score or map from PyTorch's with which a file is written."""
RANDOM_BATCHES = (1, 3)
"""Films of noise that are compared, at sizes of the batch that the export did not see."""
REAL_FILMS = 32
QUANTISED = ("network.image_encoder", "network.image_projection", "network.decoder")
"""Modules whose products are quantised: a disease head's change of a map would be seen."""
MARK = "quantised/"
"""How the names of their nodes begin."""
OPSET = 23
"""The first that has attention as one operation; ONNX Runtime knows it from 1.23 on."""
LARGEST = 2**31 - 2**24
"""Bytes of weights: an ONNX file in one piece ends below 2 GiB."""


def export_onnx(
    run: Path,
    out: Path,
    *,
    data: Path | None = None,
    int8: bool = False,
    pixels: OnnxPixels = "uint8",
    seed: int = 0,
) -> list[str]:
    """Write the model of a run as `out`, and with `int8` quantised beside it, NAME-int8.onnx.

    What the file holds is said in `models/onnx_classifier.py`. Scores and maps are compared with
    PyTorch's on noise and, with `data`, on validation films. int8 stands for dynamic quantisation:
    the weights of encoder's and decoder's matrix products are stored in 8 bits, their inputs are
    brought to 8 bits when they are known. Convolutions and disease heads stay
    as they are. Its differences are told, not judged: evaluate the file.

    Returns:
        Lines for a person.

    Raises:
        ConfigError: a needed package is not installed, another suffix than .onnx, or a network
            that cannot be exported.
        CheckpointError: no model, no card, another image size than the data's, or a file that
            answers otherwise than PyTorch by more than `PARITY`; then nothing is written.
    """
    if out.suffix != SUFFIX:
        raise ConfigError(f"--out {out}: an exported model is a file NAME{SUFFIX}")
    _refuse_without_packages()
    model = _exportable(load_model(run), run)
    films = _films(model, data, seed)
    proto = _traced(model, pixels)
    metadata = _metadata(model, run)
    content = _with_metadata(proto, metadata | {"precision": "fp32"})
    differences = _differences(model, content, out, films)
    worst = max(max(pair) for pair in differences.values())
    if not worst <= PARITY:
        raise CheckpointError(
            f"{run}: not exported: ONNX Runtime's answers differ from PyTorch's by up to "
            f"{worst:.1e}, more than {PARITY:.0e} ({_words(differences)}); a map whose range is "
            "stretched from nearly nothing can do that: train it further, or report it"
        )
    results = [(out, content, differences)]
    if int8:
        beside = out.with_name(f"{out.stem}-int8{SUFFIX}")
        small = _with_metadata(_quantised(proto), metadata | {"precision": "int8"})
        results.append((beside, small, _differences(model, small, beside, films)))
    lines = []
    for path, written, found in results:
        write_bytes(path, written)
        lines.append(f"{path}: {len(written) / 1e6:.1f} MB, differs by {_words(found)}")
    return lines


class _Answers(nn.Module):
    """The network as the file has it: pixels in; probabilities, unit maps and their parts out."""

    def __init__(self, network: Exportable) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        images = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        said = self.network(images)
        maps = simplex_to_unit(said.maps) if said.domain == "simplex" else said.maps
        parts = ("prior", "evidence") if "evidence" in said.extras else ()
        return said.logits.sigmoid(), maps, *(said.extras[part] for part in parts)


def _traced(model: Exportable, pixels: OnnxPixels) -> Any:
    """The network as an ONNX ModelProto, for any size of the batch."""
    size = sum(one.numel() * one.element_size() for one in model.state_dict().values())
    if size > LARGEST:
        raise ConfigError(
            f"the network's weights are {size / 2**30:.1f} GiB; one ONNX file holds less than 2"
        )
    dtype = torch.uint8 if pixels == "uint8" else torch.float32
    example = torch.zeros(2, model.image_size, model.image_size, dtype=dtype)
    names = ["probability", "maps"]
    if getattr(model.settings, "head", None) == "prior":
        names += ["prior", "evidence"]
    with torch.no_grad(), _quiet():
        program: Any = torch.onnx.export(
            _Answers(model.eval()).eval(),
            (example,),
            input_names=["pixels"],
            output_names=names,
            opset_version=OPSET,
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1)}},
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    for node in proto.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}
        # by its name the quantiser knows it
        within = scopes.get("pkg.torch.onnx.name_scopes", "")
        if any(module in within for module in QUANTISED):
            node.name = f"{MARK}{node.name}"
    # names of this machine's folders and lines of code; and shapes that quantising makes untrue
    for node in proto.graph.node:
        del node.metadata_props[:]
    del proto.graph.value_info[:]
    return proto


def _quantised(proto: Any) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    products = [
        node.name
        for node in proto.graph.node
        if node.op_type in ("MatMul", "Gemm") and node.name.startswith(MARK)
    ]
    if not products:  # the quantiser would take all there are
        raise ConfigError(
            "--int8: the network has no product of matrices to quantise; leave it out"
        )
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = Path(folder, "int8.onnx")
        quantize_dynamic(
            proto,
            file,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=products,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        small = onnx.load(file)
    del small.metadata_props[:]
    return small


def _metadata(model: Exportable, run: Path) -> dict[str, str]:
    assert model.card is not None  # `_exportable` refuses
    sha256 = sha256_of(weights_file(run))
    return metadata_of(model.card, model.findings, model.image_size, sha256)


def _with_metadata(proto: Any, metadata: dict[str, str]) -> bytes:
    del proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return sealed(proto.SerializeToString(deterministic=True))


def _exportable(model: Model, run: Path) -> Exportable:
    if not isinstance(model, Exportable):
        raise ConfigError(
            f"{run}: a {method_of(model)} network is not exported; those are that `dwarf train` "
            "makes, but for detectors, and not CLIP's"
        )
    if model.card is None:
        raise CheckpointError(f"{run}: the model has no card (thresholds, prior); train it first")
    return model


def _films(model: Exportable, data: Path | None, seed: int) -> dict[str, list[np.ndarray]]:
    """Batches of uint8 films (B, size, size) to compare answers on, by what they are."""
    generator = np.random.default_rng(seed)
    side = model.image_size
    noise = [generator.integers(0, 256, (n, side, side), dtype=np.uint8) for n in RANDOM_BATCHES]
    films = {f"{sum(RANDOM_BATCHES)} films of noise": noise}
    if data is not None:
        prepared = PreparedData.open(data)
        if prepared.size != side:
            raise CheckpointError(
                f"the model wants images of {side} px, {data} has {prepared.size} px; leave "
                "--data out or give data of that size"
            )
        chosen = prepared.indices("val")[:REAL_FILMS]
        films[f"{len(chosen)} films of {prepared.name}"] = [
            np.ascontiguousarray(prepared.pixels[chosen])
        ]
    return films


def _differences(
    model: Exportable,
    content: bytes,
    where: Path,
    films: dict[str, list[np.ndarray]],
) -> dict[str, tuple[float, float]]:
    """Largest differences of scores and of maps, by films."""
    exported = OnnxClassifier(content, str(where))
    found = {}
    for name, batches in films.items():
        scores, maps = [0.0], [0.0]
        for batch in batches:
            expected, answered = model.predict(batch), exported.predict(batch)
            scores += np.abs(answered.probability - expected.probability).ravel().tolist()
            maps += np.abs(answered.maps - expected.maps).ravel().tolist()
        found[name] = (float(np.max(scores)), float(np.max(maps)))
    return found


def _words(differences: dict[str, tuple[float, float]]) -> str:
    return "; ".join(
        f"scores {scores:.1e}, maps {maps:.1e} on {name}"
        for name, (scores, maps) in differences.items()
    )


def _refuse_without_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as fault:
        raise ConfigError(
            f"exporting needs {fault.name}, which is not installed: pip install 'dwarf-cxr[onnx]'"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and the quantiser say of their own affairs."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
