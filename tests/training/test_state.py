import json

import pytest
import torch
from torch import nn

from dwarf_cxr.errors import CheckpointError
from dwarf_cxr.training.state import Progress, load_state, save_state

PROGRESS = Progress(
    epoch=3,
    batch=2,
    step=17,
    bad_steps=1,
    best_score=0.1 + 0.2,
    evaluations_without_gain=2,
    seconds=12.5,
    sums={"dice": 1 / 3},
    history=[{"epoch": 1, "val_auc": None, "loss": 2 / 3, "finding": "Mass"}],
)


def network(
    seed: int = 0, memory_format: torch.memory_format = torch.contiguous_format
) -> tuple[nn.ModuleDict, torch.optim.AdamW]:
    """A convolution and two heads, of which `steps` trains one."""
    torch.manual_seed(seed)
    model = nn.ModuleDict(
        {"body": nn.Conv2d(3, 4, 3), "head0": nn.Linear(4, 2), "head1": nn.Linear(4, 2)}
    )
    model.to(memory_format=memory_format)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, fused=True)


def steps(model: nn.ModuleDict, optimizer: torch.optim.Optimizer, seeds, head: str) -> None:
    for seed in seeds:
        images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
        features = model["body"](images)
        optimizer.zero_grad()
        model[head](features.mean((2, 3))).square().sum().backward()
        optimizer.step()


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    "memory_format",
    [
        torch.contiguous_format,
        torch.channels_last,
    ],
    ids=str,
)
def test_training_goes_on_as_if_never_stopped(tmp_path, memory_format):
    model, optimizer = network(0, memory_format)
    steps(model, optimizer, range(3), "head0")
    save_state(tmp_path / "last", model, optimizer, PROGRESS)
    again, fresh = network(9, memory_format)
    assert load_state(tmp_path / "last", again, fresh) == PROGRESS
    assert same(model, again)
    steps(model, optimizer, range(3, 6), "head1")
    steps(again, fresh, range(3, 6), "head1")
    assert same(model, again)


def test_a_parameter_without_optimiser_state_gets_none(tmp_path):
    model, optimizer = network()
    steps(model, optimizer, range(2), "head1")
    save_state(tmp_path / "last", model, optimizer, PROGRESS)
    again, fresh = network(seed=9)
    load_state(tmp_path / "last", again, fresh)
    assert set(fresh.state_dict()["state"]) == {0, 1, 4, 5}
    assert all(p not in fresh.state for p in again["head0"].parameters())


def test_before_the_first_step(tmp_path):
    model, optimizer = network()
    save_state(tmp_path / "last", model, optimizer, Progress())
    again, fresh = network(seed=9)
    assert load_state(tmp_path / "last", again, fresh) == Progress()
    assert same(model, again)


def test_a_flipped_byte_is_noticed(tmp_path):
    model, optimizer = network()
    save_state(tmp_path / "last", model, optimizer, PROGRESS)
    file = tmp_path / "last" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_state(tmp_path / "last", *network())


def test_nothing_to_resume(tmp_path):
    with pytest.raises(CheckpointError, match="no training state"):
        load_state(tmp_path / "last", *network())
    model, optimizer = network()
    save_state(tmp_path / "last", model, optimizer, PROGRESS)
    (tmp_path / "last" / "progress.json").unlink()
    with pytest.raises(CheckpointError, match="no training state"):
        load_state(tmp_path / "last", *network())


@pytest.mark.parametrize("content", ["{", "{}", '{"sha256": "SHA", "progress": {"epcoh": 1}}'])
def test_a_damaged_progress_file_is_a_checkpoint_error(tmp_path, content):
    model, optimizer = network()
    save_state(tmp_path / "last", model, optimizer, PROGRESS)
    file = tmp_path / "last" / "progress.json"
    file.write_text(content.replace("SHA", json.loads(file.read_text())["sha256"]))
    with pytest.raises(CheckpointError, match=r"progress\.json"):
        load_state(tmp_path / "last", *network())


def test_a_kill_between_the_renames_leaves_the_earlier_state(tmp_path):
    model, optimizer = network()
    save_state(tmp_path / "last", model, optimizer, PROGRESS)
    (tmp_path / "last").rename(tmp_path / "last.old")
    (tmp_path / "last.new").mkdir()
    assert load_state(tmp_path / "last", *network(seed=9)) == PROGRESS


def test_a_failed_write_keeps_the_earlier_state(tmp_path, monkeypatch):
    model, optimizer = network()
    save_state(tmp_path / "last", model, optimizer, PROGRESS)

    def full_disk(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dwarf_cxr.training.state.write_json", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_state(tmp_path / "last", model, optimizer, Progress(epoch=9))
    monkeypatch.undo()
    assert load_state(tmp_path / "last", *network()) == PROGRESS
