"""Same seed, same machine, same bytes: in fresh processes, whatever Python's hash seed."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.faults.runs import command, write_tiny

MADE = ("model/model.safetensors", "model/config.json", "last/state.safetensors")


def run(place: Path, number: int) -> dict[str, str]:
    """The hashes of films drawn and prepared, and of a training, by a process of its own."""
    films = place / f"films{number}"
    drawn = ["data", "prepare", "synthetic", "--films", "12", "--size", "64", "--out", films]
    prepared = [*drawn, "--root", place / f"root{number}"]
    script = (
        "import sys; from dwarf_cxr.cli import app; "
        "[app(words.split('\\t'), standalone_mode=False) for words in sys.argv[1:]]"
    )
    trained = command(place, out=f"run{number}", epochs=2)
    lines = ["\t".join(map(str, words)) for words in (prepared, trained)]
    threads = {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": str(number)}
    subprocess.run(
        [sys.executable, "-c", script, *lines],
        env=os.environ | threads,
        check=True,
        capture_output=True,
        timeout=120,
    )
    files = [place / f"run{number}" / name for name in MADE]
    files += [films / "regions.json", films / "pixels-64.u8"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_two_processes_make_the_same_bytes(tmp_path):
    write_tiny(tmp_path)
    first, second = run(tmp_path, 1), run(tmp_path, 2)
    regions = first.pop("regions.json"), second.pop("regions.json")
    assert all(regions)  # names the folder that it was drawn into
    assert first == second
