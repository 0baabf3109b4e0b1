import dataclasses

import numpy as np
import pytest
import torch

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.predicting import predicting_at
from dwarf_cxr.models.vlm import build_classifier
from tests.tiny import FINDINGS, SIZE, random_pixels, settings, write_bert, write_vit


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    made = settings(write_vit(folder / "vit"), write_bert(folder / "bert"))
    return build_classifier(made.model, FINDINGS, SIZE, 2)


def test_bf16_is_near_fp32_and_not_the_same(model):
    pixels = random_pixels(5, seed=1)
    plain = model.predict(pixels)
    with predicting_at("bf16", model):
        short = model.predict(pixels)
    assert not torch.is_autocast_enabled("cpu")
    assert (short.probability.dtype, short.maps.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(short.probability, plain.probability, atol=0.03)
    np.testing.assert_allclose(short.maps, plain.maps, atol=0.03)
    assert not np.array_equal(short.maps, plain.maps)
    with predicting_at("fp32", model):
        assert np.array_equal(model.predict(pixels).maps, plain.maps)


def test_what_is_no_network_has_its_own_precision():
    @dataclasses.dataclass
    class Fixed:
        findings: tuple[str, ...] = FINDINGS
        image_size: int = SIZE
        card: None = None

        def predict(self, pixels, findings=None):
            raise AssertionError

    with predicting_at("fp32", Fixed()):
        pass
    with pytest.raises(ConfigError, match="leave --precision out"), predicting_at("bf16", Fixed()):
        pass
