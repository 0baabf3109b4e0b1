"""A few hundred damaged inputs for each reader; `make fuzz` looks longer, led by coverage."""

import numpy as np
import pytest

from tests.data.fuzz_images import damaged
from tests.fuzz.targets import TARGETS, survives

INPUTS = 60


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whole_inputs_are_read_and_damaged_ones_read_or_refused(target, tmp_path):
    seeds = target.seeds(tmp_path)
    assert all(survives(target, tmp_path, seed) for seed in seeds)
    rng = np.random.default_rng()
    read = [survives(target, tmp_path, damaged(seeds[n % len(seeds)], rng)) for n in range(INPUTS)]
    assert not all(read)
