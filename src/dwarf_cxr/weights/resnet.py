"""ResNet-50 tokens of KAD and MedKLIP, as the state of a `ResNetTokens`."""

from torch import Tensor

from dwarf_cxr.models.resnet import ResNetTokens
from dwarf_cxr.weights.keys import KeyReader

SEQUENTIAL = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}
"""torchvision's modules by their place among `resnet.children()`; 2 and 3 have no weights."""


def take_resnet(reader: KeyReader, width: int) -> ResNetTokens | None:
    """The encoder with its weights; None after faults, which stay in the reader.

    KAD stores every tensor under `resnet.` and under `res_features.`, MedKLIP under the latter
    only. How many stages are used is told by `res_l1`, whose width is that of the last one.
    """
    before = len(reader.faults)
    for number, name in SEQUENTIAL.items():
        reader.merge_alias(f"res_features.{number}.", f"resnet.{name}.")
    reader.drop("resnet.fc.*", "classifies other images")
    reader.drop("*.num_batches_tracked", "counts training batches")
    stages = 3 if reader.shape("res_l1.weight") == (1024, 1024) else 4
    if stages == 3:
        reader.drop("resnet.layer4.*", "this encoder ends with layer3")
    encoder = ResNetTokens(stages, width)
    state: dict[str, Tensor] = {}
    for key, value in encoder.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            name = key if key.startswith("res_l") else f"resnet.{key}"
            state[key] = reader.take(name, tuple(value.shape))
    if len(reader.faults) > before:
        return None
    encoder.load_state_dict(state, strict=False)
    return encoder
