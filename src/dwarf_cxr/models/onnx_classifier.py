"""A model in one ONNX file, run by ONNX Runtime: what it carries, and asking it.

Such a file is written by `export/onnx.py`. Input "pixels" (B, size, size): uint8, or float32 in
[0, 1]. Outputs "probability" (B, C) and "maps" (B, C, h, w) in [0, 1], of all findings; for
`dwarf-prior` also "prior" (C, h, w) and "evidence" (B, C, h, w). The metadata are strings:

    format, version          of this form and of dwarf-cxr
    findings                 JSON, in the order of the outputs
    image_size               side of the images in pixels
    map_domain               "unit": maps lie in [0, 1]
    precision                "fp32", or "int8" for the weights of matrix products
    weights_sha256           of the model folder's weights that it was made from
    score_thresholds, map_thresholds, method, data_name, data_fingerprint, …
                             the model's card, field by field, as text or JSON
    arrays                   its arrays: base64 of a compressed npz
    sha256                   of the file's bytes before this entry, which comes last

ONNX does not notice a flipped bit in weights; the last entry does.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from dwarf_cxr import __version__
from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.checkpoint import CARD_ARRAYS
from dwarf_cxr.models.outputs import MapDomain, ModelCard, Origin, Outputs
from dwarf_cxr.models.predicting import PREDICT_BATCH, asked_findings

FORMAT = "dwarf-cxr onnx 1"
SUFFIX = ".onnx"
NETWORK_MAP_DOMAIN = "network_map_domain"
"""The card's `map_domain`: of the network's own maps, which the file has brought to [0, 1]."""
SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"
"""How a last metadata entry "sha256" of 64 digits begins: field 14 of a ModelProto, whose messages
may be written one behind the other."""
SEAL_BYTES = len(SEAL) + 64


class OnnxClassifier:
    """An exported model; all that a `Classifier` is, but it can be asked no new words."""

    origin: Origin | None = None

    def __init__(self, content: bytes, where: str) -> None:
        """`content` are the file's bytes, `where` names it in errors.

        Raises:
            ConfigError: ONNX Runtime is not installed.
            CheckpointError: no such file, or damaged.
        """
        self.where = where
        check_seal(content, where)
        self.session = _session(content, where)
        metadata = self.session.get_modelmeta().custom_metadata_map
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"{where}: format {metadata.get('format')!r}, this version reads {FORMAT!r}; "
                "export the run again"
            )
        try:
            self.findings: tuple[str, ...] = tuple(json.loads(metadata["findings"]))
            self.image_size = int(metadata["image_size"])
            self.precision = metadata["precision"]
            self.card: ModelCard | None = _card(metadata)
        except (KeyError, ValueError, TypeError) as fault:
            raise CheckpointError(
                f"{where}: its metadata lack a part, or it is wrong ({fault!r}); export it again"
            ) from None
        self._input = self.session.get_inputs()[0]
        outputs = {output.name: output.shape for output in self.session.get_outputs()}
        self._outputs = list(outputs)
        self.grid: tuple[int, int] = tuple(outputs["maps"][2:])

    def predict(
        self, pixels: UInt8[np.ndarray, "film size size"], findings: Sequence[str] | None = None
    ) -> Outputs:
        """Probabilities and unit-domain maps for uint8 `pixels` (B, image_size, image_size).

        Raises:
            ConfigError: a finding the model was not trained on.
        """
        names, asked = asked_findings(self.findings, findings)
        parts = [
            self._run(pixels[start : start + PREDICT_BATCH])
            for start in range(0, len(pixels), PREDICT_BATCH)
        ]
        if not parts:
            shape = (0, len(names), *self.grid)
            return Outputs(np.zeros(shape[:2]), np.zeros(shape, dtype=np.float32), {})
        joined = {
            name: parts[0][name] if name == "prior" else np.concatenate([p[name] for p in parts])
            for name in self._outputs
        }
        extras = {}
        if "prior" in joined:
            extras = {"prior": joined["prior"][asked], "evidence": joined["evidence"][:, asked]}
        probability = joined["probability"][:, asked].astype(np.float64)
        return Outputs(probability, joined["maps"][:, asked], extras)

    def _run(self, pixels: UInt8[np.ndarray, "film size size"]) -> dict[str, np.ndarray]:
        given = np.ascontiguousarray(pixels)
        if self._input.type == "tensor(float)":
            given = given.astype(np.float32) / 255
        answers = self.session.run(self._outputs, {self._input.name: given})
        return dict(zip(self._outputs, answers, strict=True))

    @property
    def query_context(self) -> str:
        """Whether a finding's score depended on the others asked; all of them always are."""
        return "isolated" if self.card is None else self.card.query_context

    @property
    def map_domain(self) -> MapDomain:
        """The domain of the file's maps."""
        return "unit"


def open_onnx(path: Path) -> OnnxClassifier:
    """The model of an ONNX file that `dwarf export onnx` wrote.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        CheckpointError: no such file, damaged, or not of this project.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such file; give what `dwarf export onnx` wrote"
        ) from None
    return OnnxClassifier(content, str(path))


def metadata_of(
    card: ModelCard, findings: Sequence[str], image_size: int, weights_sha256: str
) -> dict[str, str]:
    """What the file carries beside the network, but for `precision` and the seal."""
    values = asdict(card)
    arrays = io.BytesIO()
    np.savez_compressed(arrays, **{name: values.pop(name) for name in CARD_ARRAYS})
    values[NETWORK_MAP_DOMAIN] = values.pop("map_domain")
    return {
        "format": FORMAT,
        "version": __version__,
        "findings": json.dumps(list(findings), ensure_ascii=False),
        "image_size": str(image_size),
        "map_domain": "unit",
        "weights_sha256": weights_sha256,
        **{
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in values.items()
        },
        "arrays": base64.b64encode(arrays.getvalue()).decode("ascii"),
    }


def sealed(content: bytes) -> bytes:
    """The bytes of an ONNX model with the last metadata entry, the SHA-256 of what is before it."""
    return content + SEAL + hashlib.sha256(content).hexdigest().encode("ascii")


def check_seal(content: bytes, where: str) -> None:
    """Refuse bytes that are not as they were written.

    Raises:
        CheckpointError: no seal, or another than that of the bytes.
    """
    body, seal = content[:-SEAL_BYTES], content[-SEAL_BYTES:]
    if not seal.startswith(SEAL):
        raise CheckpointError(
            f"{where}: not written by `dwarf export onnx`, or cut short or changed since; export "
            "the run again"
        )
    if not seal.endswith(hashlib.sha256(body).hexdigest().encode("ascii")):
        raise CheckpointError(
            f"{where}: its bytes are not those that were written (SHA-256); it is damaged: copy it "
            "or export it again"
        )


def _session(content: bytes, where: str) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ConfigError(
            f"{where}: running it needs onnxruntime, which is not installed: "
            "pip install 'dwarf-cxr[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as fault:  # the runtime's errors share no class but this
        raise CheckpointError(
            f"{where}: ONNX Runtime {onnxruntime.__version__} cannot run it ({fault}); export the "
            "run again, or install a newer onnxruntime"
        ) from None


def _card(metadata: Mapping[str, str]) -> ModelCard:
    content = io.BytesIO(base64.b64decode(metadata["arrays"]))
    with np.load(content, allow_pickle=False) as stored:
        values: dict[str, Any] = {name: stored[name] for name in CARD_ARRAYS}
    for field in fields(ModelCard):
        if field.name not in CARD_ARRAYS:
            key = NETWORK_MAP_DOMAIN if field.name == "map_domain" else field.name
            values[field.name] = metadata[key] if field.type is str else json.loads(metadata[key])
    return ModelCard(**values)
