"""A model whose answers are numbers of the film, to stand in for a trained one."""

import dataclasses

import numpy as np

from dwarf_cxr.detection.detections import Detections
from dwarf_cxr.models.outputs import Outputs
from dwarf_cxr.review import suggestions
from tests.tiny import card_for


class Told:
    """A model that is asked once per film; its answers are numbers of the film."""

    def __init__(self, findings, size):
        self.findings = findings
        self.image_size = size
        self.asked = 0
        self.card = dataclasses.replace(card_for(self), map_thresholds=dict.fromkeys(findings, 0.5))
        self.origin = None

    query_context = "isolated"
    map_domain = "unit"

    def predict(self, pixels, findings=None):
        assert pixels.shape[1:] == (self.image_size, self.image_size)
        self.asked += len(pixels)
        mean = pixels.reshape(len(pixels), -1).mean(axis=1) / 255
        scores = mean[:, None] / (1 + np.arange(len(findings)))
        maps = np.zeros((len(pixels), len(findings), 6, 6), np.float32)
        maps[:, 0, 1:3, 2:4] = 1
        return Outputs(scores, maps, {})


class Boxed(Told):
    """Also has boxes of its own: of the first of the findings asked for two, of the second one."""

    def predict(self, pixels, findings=None):
        found = Detections(
            np.array([[16, 16, 32, 32], [1, 1, 2, 2], [0, 0, 16, 32]], np.float32),
            np.array([0.6, 0.4, 0.9], np.float32),
            np.array([0, 0, 1]),
        )
        return super().predict(pixels, findings)._replace(detections=(found,) * len(pixels))


def use(monkeypatch, model):
    monkeypatch.setattr("dwarf_cxr.models.checkpoint.load_model", lambda folder: model)
    monkeypatch.setattr(suggestions, "PART", 3)
