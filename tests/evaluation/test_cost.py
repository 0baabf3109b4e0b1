"""Parameters counted by hand, and time that passes while a model predicts."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from torch import nn

from dwarf_cxr.evaluation.cost import Stopwatch, cost_block, parameter_counts
from dwarf_cxr.evaluation.evaluate import evaluate
from dwarf_cxr.models.outputs import Outputs
from tests.tiny import FINDINGS, SIZE, card_for, write_data


class Sleeper(nn.Module):
    """A classifier of 3·5 + 5 frozen values and 5·2 + 2 that are trained."""

    findings = FINDINGS
    image_size = SIZE
    query_context = "isolated"

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.frozen = nn.Linear(3, 5).requires_grad_(False)
        self.trained = nn.Linear(5, 2)
        self.register_buffer("prompts", torch.zeros(7))
        self.seconds = seconds
        self.card = card_for(self)

    def predict(self, pixels, findings=None):
        time.sleep(self.seconds * len(pixels))
        shape = (len(pixels), len(self.findings if findings is None else findings))
        rng = np.random.default_rng(len(pixels))
        return Outputs(rng.random(shape), rng.random((*shape, 4, 4)).astype(np.float32), {})


def test_frozen_layers_are_not_trained_and_buffers_are_no_parameters():
    assert parameter_counts(Sleeper()) == {"total": 32, "trained": 12}


def test_nothing_of_a_zero_shot_model_is_trained():
    model = Sleeper()
    model.card = dataclasses.replace(model.card, zero_shot=True)
    assert parameter_counts(model) == {"total": 32, "trained": 0}


def test_what_is_no_network_has_no_parameters():
    class Rule:
        findings, image_size, card = FINDINGS, SIZE, None

        def predict(self, pixels, findings=None):
            raise NotImplementedError

    assert cost_block(Rule(), 3.0, 4)["parameters"] is None
    assert cost_block(Rule(), 3.0, 4)["inference_seconds_per_image"] == 0.75


def test_a_stopwatch_adds_up_and_counts_nothing_in_between():
    watch, started = Stopwatch(), time.perf_counter()
    for _ in range(2):
        with watch.running():
            time.sleep(0.02)
        time.sleep(0.05)
    assert 0.04 <= watch.seconds <= time.perf_counter() - started - 0.1


def test_an_evaluation_times_its_predictions(tmp_path):
    data = write_data(tmp_path / "data")
    cost = evaluate(Sleeper(0.03), data, split="test", out=tmp_path / "out", draws=3)["cost"]
    assert cost["images"] == 4
    assert cost["parameters"] == {"total": 32, "trained": 12}
    assert 0.03 <= cost["inference_seconds_per_image"] < 3
    assert cost["device"].startswith("cpu")
    assert cost["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("split", ["val", "test"])
def test_supervision_is_recorded_as_it_is_given(tmp_path, split):
    data = write_data(tmp_path / "data")
    words = {"split": split, "out": tmp_path / "out", "draws": 3}
    assert "supervision" not in evaluate(Sleeper(), data, **words)
    said = evaluate(Sleeper(), data, supervision={"labels": 0.5}, **words)
    assert said["supervision"] == {"labels": 0.5}
