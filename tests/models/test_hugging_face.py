import os
import subprocess
import sys
from pathlib import Path

import pytest

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.hugging_face import find_folder
from dwarf_cxr.models.image_encoders import build_image_encoder
from tests.models.made_towers import own_size, write_tower
from tests.tiny import write_vit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CALL = "import sys; from dwarf_cxr.models.hugging_face import find_folder as f; "


def cached_model(cache: Path, name: str) -> Path:
    """A cache that holds that model, empty as yet, laid out as the hub's client does."""
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    folder = home / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def offline(cache: Path, name: str) -> subprocess.CompletedProcess[str]:
    """`find_folder` in a process of its own: the client reads its environment when imported."""
    environment = os.environ | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", CALL + f"print(f('image_encoder', {name!r}))"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_name_is_found_in_the_cache_that_the_environment_names(tmp_path):
    folder = cached_model(tmp_path, "microsoft/rad-dino")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    found = offline(tmp_path, "microsoft/rad-dino")
    assert found.stdout.strip() == str(folder), found.stderr


def test_offline_a_name_that_is_not_cached_is_refused_with_the_remedy(tmp_path):
    refused = offline(tmp_path, "microsoft/rad-dino")
    last = refused.stderr.strip().splitlines()[-1]
    assert "ConfigError" in last
    assert "image_encoder = microsoft/rad-dino" in last
    assert "hf download microsoft/rad-dino" in last
    assert "give a folder" in last


def test_a_cached_model_serves_by_its_name(cache):
    mean = [0.5307, 0.5307, 0.5307]
    processor = {"image_mean": mean, "image_std": [0.2583] * 3}
    write_tower(cached_model(cache, "microsoft/rad-dino"), "dinov2", processor)
    encoder = build_image_encoder("microsoft/rad-dino", 1)
    assert encoder.grid(own_size("dinov2")) == (4, 4)
    assert encoder.normalisation.mean == pytest.approx(mean)


@pytest.mark.parametrize("present", [(), ("config.json",), ("model.safetensors",)])
def test_a_cache_with_a_part_of_the_model_is_not_enough(cache, present):
    folder = cached_model(cache, "org/part")
    for name in present:
        (folder / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"org/part.*hf download org/part"):
        find_folder("image_encoder", "org/part")


def test_a_local_folder_comes_before_the_hub(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.chdir(tmp_path)
    write_vit(tmp_path / "org" / "vit")
    assert find_folder("image_encoder", "org/vit") == Path("org/vit")
    assert build_image_encoder("org/vit", None).width == 32


@pytest.mark.parametrize("name", ["nowhere", "/no/where", "./org/name", "a/b/c", "../a", "org/"])
def test_what_is_neither_a_folder_nor_a_hub_name_never_asks_the_hub(monkeypatch, name):
    def refuse(*_, **__):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ConfigError, match="no such folder"):
        find_folder("image_encoder", name)


def test_whatever_the_hub_answers_is_one_message(monkeypatch, cache):
    calls = []

    def answer(name, *, allow_patterns, local_files_only=False):
        from huggingface_hub.errors import LocalEntryNotFoundError

        calls.append((local_files_only, allow_patterns))
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        raise TimeoutError("no answer\nfrom far away")

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    with pytest.raises(ConfigError, match=r"cannot give it \(no answer\)"):
        find_folder("image_encoder", "org/name")
    assert [local for local, _ in calls] == [True, False]


def test_pickled_weights_are_fetched_only_where_there_are_no_others(monkeypatch, tmp_path, cache):
    fetched = []

    def answer(name, *, allow_patterns, local_files_only=False):
        from huggingface_hub.errors import LocalEntryNotFoundError

        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        fetched.append(allow_patterns[-1])
        if allow_patterns[-1].endswith(".bin"):
            (tmp_path / "pytorch_model.bin").touch()
        (tmp_path / "config.json").touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    assert find_folder("image_encoder", "org/old") == tmp_path
    assert fetched == ["model*.safetensors", "pytorch_model*.bin"]
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "model.safetensors").touch()
    fetched.clear()
    find_folder("image_encoder", "org/new")
    assert fetched == ["model*.safetensors"]
