import json

import pytest
import torch

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.image_encoders import rebuild_image_encoder
from dwarf_cxr.models.resnet import ResNetTokens


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    return torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_an_encoder_rebuilt_from_its_description_takes_the_weights(films):
    torch.manual_seed(3)
    encoder = ResNetTokens(3, 24, frozen_layers=2)
    again = rebuild_image_encoder(json.loads(json.dumps(encoder.describe())))
    assert isinstance(again, ResNetTokens)
    assert again.frozen_layers == 2
    again.load_state_dict(encoder.state_dict())
    tokens = encoder.eval()(films)
    assert tokens.shape == (2, 16, 24)
    assert torch.equal(again.eval()(films), tokens)


@torch.no_grad()
@pytest.mark.parametrize("stages", [3, 4])
@pytest.mark.parametrize("size", [64, 90, 33])
def test_the_grid_is_what_the_tokens_make(stages, size):
    encoder = ResNetTokens(stages, 8)
    rows, columns = encoder.grid(size)
    assert encoder(torch.rand(1, size, size)).shape == (1, rows * columns, 8)


def test_frozen_blocks_do_not_move(films):
    encoder = ResNetTokens(3, 24, frozen_layers=4).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    encoder(films).square().sum().backward()
    optimizer.step()
    frozen = ("conv1.", "bn1.", "layer1.", "layer2.0.")
    for key, value in encoder.state_dict().items():
        still = key.startswith(frozen) or "running" in key or "num_batches" in key
        assert torch.equal(value, before[key]) == still, key


@torch.no_grad()
def test_batch_norm_keeps_its_statistics_while_training(films):
    encoder = ResNetTokens(3, 24).train()
    torch.testing.assert_close(encoder(films[:1]), encoder(films)[:1], rtol=1e-4, atol=1e-5)


def test_too_many_frozen_layers_are_refused():
    with pytest.raises(ConfigError, match=r"frozen_layers = 14: .* 13 blocks"):
        ResNetTokens(3, 24, frozen_layers=14)
    ResNetTokens(4, 24, frozen_layers=16)
