import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.backbones import build_backbone, rebuild_backbone
from dwarf_cxr.models.resnet import Bottleneck, ResNetStages

STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet50"])
def test_features_have_the_channels_and_strides_that_are_promised(name):
    backbone = build_backbone(name, None)
    features = backbone.stages(torch.rand(2, 64, 96))
    assert len(backbone.channels) == len(features) == 4
    for feature, channels, stride in zip(features, backbone.channels, STRIDES, strict=True):
        assert feature.shape == (2, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet50"])
def test_beyond_the_output_stride_the_grid_stays(name):
    strided = build_backbone(name, 0).eval()
    dilated = build_backbone(name, 0, output_stride=8).eval()
    dilated.load_state_dict(strided.state_dict())
    images = torch.rand(1, 64, 96)
    at_8, at_32 = dilated.stages(images), strided.stages(images)
    assert [tuple(one.shape[-2:]) for one in at_8] == [(16, 24), (8, 12), (8, 12), (8, 12)]
    torch.testing.assert_close(at_8[1], at_32[1])


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_dilated_block_sees_what_a_block_sees_of_every_second_or_fourth_cell(dilation):
    torch.manual_seed(dilation)
    plain, dilated = Bottleneck(8, 4, 1).eval(), Bottleneck(8, 4, 1, dilation).eval()
    dilated.load_state_dict(plain.state_dict())
    plain.downsample = dilated.downsample
    features = torch.randn(2, 8, 8, 12)
    whole = dilated(features)
    for row in range(dilation):
        for column in range(dilation):
            part = features[..., row::dilation, column::dilation]
            torch.testing.assert_close(whole[..., row::dilation, column::dilation], plain(part))


def test_random_weights_learn_with_the_statistics_of_the_batch():
    backbone = build_backbone("resnet50", None).train()
    before = backbone.bn1.running_mean.clone()
    backbone.stages(torch.rand(2, 32, 32))
    assert not torch.equal(backbone.bn1.running_mean, before)
    fixed = ResNetStages().train()
    before = fixed.bn1.running_mean.clone()
    fixed.stages(torch.rand(2, 32, 32))
    assert torch.equal(fixed.bn1.running_mean, before)


@pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet50"])
def test_a_description_rebuilds_the_network(name):
    backbone = build_backbone(name, 2, output_stride=16).eval()
    again = rebuild_backbone(json.loads(json.dumps(backbone.describe()))).eval()
    again.load_state_dict(backbone.state_dict())
    images = torch.rand(2, 48, 64)
    for mine, other in zip(backbone.stages(images), again.stages(images), strict=True):
        torch.testing.assert_close(mine, other)
    frozen = [p for p in again.parameters() if not p.requires_grad]
    assert frozen


def test_weights_in_torchvision_s_layout_are_read(tmp_path):
    source = ResNetStages().eval()
    tensors = {key: 0.03 * torch.randn(value.shape) for key, value in source.state_dict().items()}
    for key in tensors:
        if key.endswith("running_var"):
            tensors[key] = torch.rand(tensors[key].shape) + 0.5
        if key.endswith("num_batches_tracked"):
            tensors[key] = torch.tensor(7)
    tensors |= {"fc.weight": torch.randn(1000, 2048), "fc.bias": torch.randn(1000)}
    file = tmp_path / "resnet50.safetensors"
    save_file(tensors, file)
    backbone = build_backbone(str(file), 0)
    assert backbone.fixed_norms
    for key, value in backbone.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, tensors[key]), key
    # and means what torchvision means by them: the stem by hand
    image = torch.rand(1, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (image[:, None] - mean[:, None, None]) / std[:, None, None]
    stem = F.conv2d(normalised, tensors["conv1.weight"], stride=2, padding=3)
    scale = tensors["bn1.weight"] / (tensors["bn1.running_var"] + 1e-5).sqrt()
    shift = tensors["bn1.bias"] - tensors["bn1.running_mean"] * scale
    stem = F.max_pool2d(F.relu(stem * scale[:, None, None] + shift[:, None, None]), 3, 2, 1)
    torch.testing.assert_close(
        backbone.stages(image)[0], backbone.layer1(stem), rtol=1e-4, atol=1e-3
    )


def test_wrong_names_and_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="resnet51"):
        build_backbone("resnet51", None)
    with pytest.raises(ConfigError, match="16 blocks"):
        build_backbone("resnet50", 99)
    file = tmp_path / "other.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        build_backbone(str(file), None)
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, file)
    with pytest.raises(CheckpointError, match="bn1"):
        build_backbone(str(file), None)
    with pytest.raises(CheckpointError, match="alien"):
        rebuild_backbone({"kind": "alien"})
