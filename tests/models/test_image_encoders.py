import pytest

from dwarf_cxr.errors import CheckpointError, ConfigError
from dwarf_cxr.models.efficientnet import EfficientNetLite0
from dwarf_cxr.models.image_encoders import build_image_encoder, rebuild_image_encoder
from dwarf_cxr.models.vision_transformer import VisionTransformer
from tests.tiny import write_vit


def test_a_name_builds_its_encoder(tmp_path):
    starter = build_image_encoder("efficientnet-lite0", None)
    assert isinstance(starter, EfficientNetLite0)
    assert starter.frozen_layers == 5
    folder = write_vit(tmp_path / "vit")
    encoder = build_image_encoder(str(folder), None)
    assert isinstance(encoder, VisionTransformer)
    assert encoder.frozen_layers == 0


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "swin"}'])
def test_a_folder_without_a_vit_is_a_config_error(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="image_encoder = "):
        build_image_encoder(str(tmp_path), 0)


def test_an_unknown_kind_is_refused():
    with pytest.raises(CheckpointError, match="'resnet'"):
        rebuild_image_encoder({"kind": "resnet"})
