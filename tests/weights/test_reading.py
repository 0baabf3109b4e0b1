import argparse
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.weights.reading import bare_key, open_foreign, tensors_of
from tests.tiny import Trap, booby_trap
from tests.weights.made import dwarf


def saved(path: Path, **options: bool) -> Path:
    """A checkpoint of some 100 KB, so that there is something to damage."""
    weights = {"a.weight": torch.randn(160, 160, generator=torch.Generator().manual_seed(3))}
    torch.save({"model": weights, "epoch": 4}, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_any_age_is_read(tmp_path, zipped):
    file = saved(tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    found = open_foreign(file, trust=False)
    assert found.notes == ()
    assert found.content["epoch"] == 4
    assert found.section("model")["a.weight"].shape == (160, 160)
    assert len(found.sha256) == 64


def test_safetensors_are_read(tmp_path):
    save_file({"module.x": torch.arange(6.0).reshape(2, 3)}, tmp_path / "a.safetensors")
    found = open_foreign(tmp_path / "a.safetensors", trust=False)
    assert tensors_of(found.content, "a")["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


def torch_trap(file: Path, mark: Path) -> Path:
    torch.save({"model": {"w": torch.ones(2)}, "config": Trap(mark)}, file)
    return mark


@pytest.mark.parametrize("trap", [booby_trap, torch_trap])
@pytest.mark.parametrize("family", ["kad", "medklip", "med-kebert", "vit"])
def test_a_malicious_pickle_does_not_run(tmp_path, monkeypatch, capsys, trap, family):
    mark = trap(tmp_path / "evil.pt", tmp_path / "sprung")
    words = ("weights", "import", family, tmp_path / "evil.pt", "--out", tmp_path / "out")
    assert dwarf(*words, monkeypatch=monkeypatch) == 1
    assert "add --trust if you know where the file comes from" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]
    assert not mark.exists()


def test_the_trap_would_have_sprung(tmp_path):
    mark = torch_trap(tmp_path / "evil.pt", tmp_path / "sprung")
    open_foreign(tmp_path / "evil.pt", trust=True)
    assert mark.exists()


def test_what_needs_a_full_unpickling_says_which_type_and_why(tmp_path):
    weights = {"w": torch.ones(2)}
    torch.save({"model": weights, "args": argparse.Namespace(lr=1)}, tmp_path / "args.pt")
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace.*add --trust"):
        open_foreign(tmp_path / "args.pt", trust=False)
    trusted = open_foreign(tmp_path / "args.pt", trust=True)
    assert trusted.section("model")["w"].tolist() == [1, 1]
    assert "--trust" in trusted.notes[0]
    assert "argparse.Namespace" in trusted.notes[0]


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped_in_a_weight(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def flipped_header(content: bytes) -> bytes:
    return bytes([content[0] ^ 0xFF, content[1] ^ 0xFF]) + content[2:]


DAMAGE = {
    "truncated": (truncated, "damaged"),
    "one bit": (flipped_in_a_weight, "checksum"),
    "header": (flipped_header, "damaged"),
    "empty": (lambda _: b"", "the file is empty"),
    "page": (lambda _: b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
    "pointer": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "noise": (lambda _: bytes(range(256)) * 9, "damaged"),
    "text": (lambda _: b"epoch 4 loss 0.2\n" * 40, "no file that begins with b'epoch 4 loss'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("trust", [False, True])
def test_damaged_files_are_one_clear_error(tmp_path, monkeypatch, capsys, damage, trust):
    file = saved(tmp_path / "kad.pt")
    change, said = DAMAGE[damage]
    file.write_bytes(change(file.read_bytes()))
    words = ["weights", "import", "kad", file, "--out", tmp_path / "out"]
    assert dwarf(*words, *(["--trust"] if trust else []), monkeypatch=monkeypatch) == 1
    message = capsys.readouterr().err
    assert said in message
    assert str(file) in message
    assert "Traceback" not in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kad.pt"]


@pytest.mark.parametrize("change", [truncated, flipped_header])
def test_damaged_safetensors_are_an_error(tmp_path, change):
    file = tmp_path / "a.safetensors"
    save_file({"x": torch.ones(50, 50)}, file)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: damaged"):
        open_foreign(file, trust=False)


def test_the_end_of_a_zip_of_several_disks_is_damage(tmp_path):
    # found by fuzzing: zipfile raises already when it is asked whether this is a zip
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    (tmp_path / "a.pt").write_bytes(b"PK\x03\x04" + bytes(30) + locator + end)
    with pytest.raises(CheckpointError, match=r"a\.pt: damaged"):
        open_foreign(tmp_path / "a.pt", trust=False)


def test_what_is_no_dictionary_of_weights_is_refused(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        open_foreign(tmp_path / "list.pt", trust=False)
    with pytest.raises(CheckpointError, match="no such file"):
        open_foreign(tmp_path / "none.pt", trust=False)
    with pytest.raises(CheckpointError, match="no weights there"):
        open_foreign(tmp_path, trust=False)


def test_wrappers_are_taken_off_in_any_order():
    for key in (
        "a.b",
        "module.a.b",
        "_orig_mod.a.b",
        "module._orig_mod.a.b",
        "_orig_mod.module.a.b",
    ):
        assert bare_key(key) == "a.b"
    assert bare_key("a.module.b") == "a.module.b"
    with pytest.raises(CheckpointError, match="mixed"):
        tensors_of({"a": torch.ones(1), "module.a": torch.ones(1)}, "here")
    with pytest.raises(CheckpointError, match="not tensors: b"):
        tensors_of({"a": torch.ones(1), "b": 3}, "here")


def test_options_of_another_family_are_refused(tmp_path, monkeypatch, capsys):
    words = ("weights", "import", "vit", tmp_path / "a.pt", "--out", tmp_path / "out")
    assert dwarf(*words, "--image-size", 224, monkeypatch=monkeypatch) == 1
    assert "--image-size: not an option of vit" in capsys.readouterr().err
    assert dwarf("weights", "import", "clipp", "x", "--out", "y", monkeypatch=monkeypatch) == 2
