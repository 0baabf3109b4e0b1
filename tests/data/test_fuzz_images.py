"""No damaged file ends, hangs or fills the process (faults 1, 2, 5, 7, 17, 18, 19)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FILES = 200
MANY = 10_000
MOST_MB = 1024


@pytest.mark.parametrize("count", [FILES, pytest.param(MANY, marks=pytest.mark.slow)])
def test_damaged_files_are_read_or_refused(count):
    done = subprocess.run(
        [sys.executable, "-m", "tests.data.fuzz_images", "0", str(count)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"ended at seed {done.stderr[-3000:]}"
    outcome = json.loads(done.stdout)
    print(outcome)
    assert outcome["read"] + outcome["refused"] == count
    assert outcome["refused"] > count / 4
    assert outcome["read"] > count / 20
    assert outcome["peak_mb"] < MOST_MB
    # decoders and pydicom are silent: nothing but seeds
    assert done.stderr.split() == [str(seed) for seed in range(count)]
