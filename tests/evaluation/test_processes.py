"""Several processes evaluate as one: the same metrics and cases, digit for digit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError
from dwarf_cxr.evaluation import evaluate as module
from dwarf_cxr.evaluation.evaluate import evaluate
from dwarf_cxr.evaluation.processes import Processes, started_together
from dwarf_cxr.models.checkpoint import save_model
from tests.reporting.made import tiny_model
from tests.tiny import FINDINGS, write_data

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.evaluation import evaluate as module
from dwarf_cxr.evaluation.processes import started_together
from dwarf_cxr.models.checkpoint import load_model
module.BATCH = 4
place = Path(sys.argv[2])
with started_together() as processes:
    out = place / f"of-{processes.count}"
    metrics = module.evaluate(
        load_model(place / "model"), PreparedData.open(place / "data"),
        split="train", out=out, draws=20, save_maps=True, processes=processes,
    )
    (place / f"told-{processes.count}-{processes.rank}").write_text(repr(metrics["macro"]["auc"]))
"""


@pytest.mark.parametrize(
    ("images", "batch", "count"), [(0, 4, 3), (13, 4, 2), (5, 4, 4), (64, 8, 3)]
)
def test_shares_are_whole_batches_and_every_image_once(images, batch, count):
    shares = [Processes(rank, count).share(images, batch) for rank in range(count)]
    taken = [image for share in shares for image in range(share.start, share.stop)]
    assert taken == list(range(images))
    assert all(share.start % batch == 0 or share.start == images for share in shares)


def test_alone_it_keeps_what_it_has():
    assert Processes().gather("mine") == ["mine"]
    assert Processes().from_first({"a": 1}) == {"a": 1}
    with started_together() as processes:
        assert processes == Processes(0, 1)


def test_an_environment_without_a_meeting_place_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR"), started_together():
        pass


def test_a_number_of_processes_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "")
    with started_together() as processes:
        assert processes == Processes(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="'two'"), started_together():
        pass


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    data = write_data(folder / "data", train=19, val=4)
    save_model(tiny_model(data, findings=FINDINGS), folder / "model")
    return folder


def run_together(place: Path, count: int) -> Path:
    script = place / "script.py"
    script.write_text(SCRIPT)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*start, f"--nproc-per-node={count}", str(script), str(Path.cwd()), str(place)]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=120)
    return place / f"of-{count}"


@pytest.mark.slow  # on a busy machine gloo now and then aborts a process that leaves
def test_two_and_four_processes_evaluate_as_one(place):
    one, two, four = (run_together(place, count) for count in (1, 2, 4))
    expected = json.loads((one / "metrics.json").read_text())
    del expected["cost"]
    assert expected["macro"]["max_dice"]["value"] > 0
    for other in (two, four):
        found = json.loads((other / "metrics.json").read_text())
        assert found.pop("cost")["images"] == 19
        assert found == expected
        assert (other / "cases.csv").read_bytes() == (one / "cases.csv").read_bytes()
        with np.load(one / "maps.npz") as maps, np.load(other / "maps.npz") as others:
            assert np.array_equal(maps["maps"], others["maps"])
    told = {path.read_text() for path in place.glob("told-*")}
    assert len(list(place.glob("told-*"))) == 7
    assert len(told) == 1


class Forgetful(Processes):
    """As if the second process had scored other images than it should have."""

    def gather(self, mine):
        return [mine, mine]


def test_images_scored_twice_or_not_at_all_are_refused(place, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 4)
    data = PreparedData.open(place / "data")
    model = tiny_model(data, findings=FINDINGS)
    with pytest.raises(DataError, match=r"scored 16 images, 8 of them distinct and 8 of the 19"):
        evaluate(model, data, split="train", out=tmp_path, draws=5, processes=Forgetful(0, 2))
