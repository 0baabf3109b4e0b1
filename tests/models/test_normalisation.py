import json

import numpy as np
import pytest
from PIL import Image

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.normalisation import FAMILY_NORMALISATION, read_normalisation


def write(folder, values, name="preprocessor_config.json"):
    (folder / name).write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_mean": [0.1, 0.5, 0.9], "image_std": [0.3, 0.2, 0.7]},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [50.0] * 3},
        {"do_normalize": False},
    ],
)
def test_pixels_become_what_the_image_processor_makes_of_them(tmp_path, options):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor = ViTImageProcessorPil(do_resize=False, **options)
    processor.save_pretrained(tmp_path)
    grey = np.random.default_rng(0).integers(0, 256, (6, 9), dtype=np.uint8)
    film = Image.fromarray(np.stack([grey] * 3, axis=-1))
    expected = np.asarray(processor(film, return_tensors="np")["pixel_values"][0])
    mean, std = (np.array(values)[:, None, None] for values in read_normalisation(tmp_path, "vit"))
    np.testing.assert_allclose(
        (grey[None] / 255 - mean) / std * np.ones((3, 1, 1)), expected, rtol=1e-5, atol=1e-6
    )


def test_a_newer_folder_keeps_its_processor_in_another_file(tmp_path):
    processor = {"image_mean": [0.2] * 3, "image_std": [0.4] * 3}
    write(tmp_path, {"image_processor": processor}, "processor_config.json")
    assert read_normalisation(tmp_path, "clip_vision_model").mean == pytest.approx((0.2,) * 3)
    write(tmp_path, {"image_mean": 0.6, "image_std": 0.1})  # the older name is the plain one
    assert read_normalisation(tmp_path, "clip_vision_model").mean == pytest.approx((0.6,))


@pytest.mark.parametrize("family", FAMILY_NORMALISATION)
def test_without_a_file_the_family_decides(tmp_path, family):
    assert read_normalisation(tmp_path, family) == FAMILY_NORMALISATION[family]
    write(tmp_path, {"tokenizer_class": "x"}, "processor_config.json")
    assert read_normalisation(tmp_path, family) == FAMILY_NORMALISATION[family]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"image_mean": "grey"}',
        '{"image_std": [0, 1, 1]}',
        '{"rescale_factor": -1}',
        '{"image_mean": [true]}',
        '{"rescale_factor": [1, 2]}',
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path, content):
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ConfigError, match="preprocessor_config"):
        read_normalisation(tmp_path, "vit")
