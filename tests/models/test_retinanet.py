"""The detector: what its outputs mean, and that it learns where a square is."""

import numpy as np
import pytest
import torch

from dwarf_cxr.config import RetinaNetSettings
from dwarf_cxr.detection.anchors import make_anchors
from dwarf_cxr.detection.boxes import FilmBoxes, box_iou, decode, non_maximum_suppression
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.models.building import build_fresh
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.retinanet import PRIOR_PROBABILITY, STRIDES, RetinaNet
from dwarf_cxr.objectives.detection import detection_loss
from tests.tiny import SIZE, card_for, random_pixels

FINDINGS = ("Mass", "Effusion", "Nodule")


def tiny(**settings) -> RetinaNet:
    small = {"width": 16, "depth": 1} | settings
    return build_fresh(RetinaNetSettings(**small), FINDINGS, SIZE, seed=3)


def shaken(model: RetinaNet) -> RetinaNet:
    """With outputs that differ from anchor to anchor."""
    for subnet in (model.class_subnet, model.box_subnet):
        torch.nn.init.normal_(
            subnet[-1].weight, std=0.2, generator=torch.Generator().manual_seed(4)
        )
    return model.eval()


def test_at_the_start_every_anchor_has_the_prior_probability_and_its_own_place():
    model = tiny().eval()
    said = model(torch.rand(2, SIZE, SIZE))
    count = 9 * (8 * 8 + 4 * 4 + 2 * 2)
    assert said.extras["class_logits"].shape == (2, count, 3)
    assert said.extras["offsets"].shape == (2, count, 4)
    assert said.logits.shape == (2, 3)
    assert said.maps.shape == (2, 3, *model.grid) == (2, 3, 8, 8)
    assert said.extras["class_logits"].sigmoid().mean().item() == pytest.approx(
        PRIOR_PROBABILITY, rel=0.1
    )
    assert float(said.extras["offsets"].abs().max()) < 0.5
    expected = make_anchors([(8, 8), (4, 4), (2, 2)], STRIDES, [20.0, 40.0, 80.0])
    assert torch.equal(said.extras["anchors"], expected)


def test_outputs_stand_in_the_order_of_the_anchors():
    model = tiny()
    for subnet in (model.class_subnet, model.box_subnet):
        torch.nn.init.zeros_(subnet[-1].weight)
    levels = [torch.zeros(1, 16, 8, 8), torch.zeros(1, 16, 4, 4), torch.zeros(1, 16, 2, 2)]
    with torch.no_grad():
        model.class_subnet[-1].bias.copy_(torch.arange(27.0))
        logits, _ = model.score_anchors(levels)
        # of each cell: shape by shape, its findings
        assert torch.equal(logits[0, :9].flatten(), torch.arange(27.0))
        assert torch.equal(logits[0, -9:].flatten(), torch.arange(27.0))
        # and cells row by row, by a kernel that looks at its own cell alone
        model.class_subnet = model.class_subnet[-1]
        model.class_subnet.weight[:, :, 1, 1] = 1
        model.class_subnet.bias.zero_()
        levels[1][0, :, 2, 3] = 1
        logits, _ = model.score_anchors(levels)
    lit = logits[0].any(dim=1).nonzero()[:, 0]
    first = 9 * (64 + 2 * 4 + 3)
    assert lit.tolist() == list(range(first, first + 9))
    middles = model.anchors[lit].reshape(9, 2, 2).mean(dim=1)
    torch.testing.assert_close(middles, torch.tensor([[3.5 * 16, 2.5 * 16]]).expand(9, 2))


def test_a_finding_s_score_is_that_of_its_best_anchor_whatever_is_asked():
    model = shaken(tiny())
    images = torch.rand(3, SIZE, SIZE)
    with torch.no_grad():
        whole, part = model(images), model(images, [2, 0])
    torch.testing.assert_close(whole.logits, whole.extras["class_logits"].max(dim=1).values)
    torch.testing.assert_close(part.logits, whole.logits[:, [2, 0]])
    torch.testing.assert_close(part.maps, whole.maps[:, [2, 0]])
    assert part.extras["class_logits"].shape[-1] == 2
    scores = whole.logits.sigmoid()
    assert bool((whole.maps.amax(dim=(2, 3)) <= scores + 1e-6).all())
    assert bool((whole.maps > 0).any())
    assert whole.maps.unique().numel() > 9


def test_detections_are_the_greedy_best_boxes():
    model = shaken(tiny(kept_boxes=4, box_overlap=0.2))
    pixels = random_pixels(3)
    films = model.predict(pixels).detections
    assert len(films) == 3
    with torch.no_grad():
        said = model(torch.from_numpy(pixels).float() / 255)
    for film, found in enumerate(films):
        for finding in range(3):
            own = found.findings == finding
            boxes, scores = torch.from_numpy(found.boxes[own]), found.scores[own]
            assert 1 <= len(boxes) <= 4
            assert scores.tolist() == sorted(scores, reverse=True)
            assert scores[0] == pytest.approx(float(said.logits[film, finding].sigmoid()))
            assert float((box_iou(boxes, boxes) - torch.eye(len(boxes))).max()) <= 0.2
            every = decode(said.extras["offsets"][film], model.anchors).clamp(0, SIZE)
            ranked = said.extras["class_logits"][film, :, finding].topk(100)
            kept = non_maximum_suppression(every[ranked.indices], ranked.values, 0.2)
            torch.testing.assert_close(boxes, every[ranked.indices][kept][:4])
    # asked for some findings, in another order, it says the same of them
    for part, whole in zip(
        model.predict(pixels, ["Nodule", "Mass"]).detections, films, strict=True
    ):
        for place, finding in enumerate((2, 0)):
            mine, theirs = part.findings == place, whole.findings == finding
            np.testing.assert_allclose(part.boxes[mine], whole.boxes[theirs], atol=1e-4)
            np.testing.assert_allclose(part.scores[mine], whole.scores[theirs], rtol=1e-4)
    assert model.predict(pixels[:0]).detections is None


def test_it_learns_where_a_square_is():
    rng = np.random.default_rng(6)
    model = tiny(width=32)
    rest = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(rest, lr=3e-3)
    known = torch.ones(6, 3, dtype=torch.bool)
    model.train()

    def films(count: int):
        images, truths = torch.full((count, SIZE, SIZE), 0.3), []
        for film in range(count):
            x, y = (int(one) for one in rng.integers(0, SIZE - 24, 2))
            images[film, y : y + 24, x : x + 24] = 0.9
            boxes = torch.tensor([[x, y, x + 24.0, y + 24]])
            truths.append(FilmBoxes(boxes, torch.tensor([1])))
        return images, truths

    for _ in range(30):
        images, truths = films(6)
        said = model(images)
        loss = detection_loss(
            said.extras["class_logits"], said.extras["offsets"], model.anchors, truths, known
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, truths = films(6)
    overlaps = []
    outputs = model.predict((images * 255).byte().numpy())
    for found, truth in zip(outputs.detections, truths, strict=True):
        best = found.boxes[found.findings == 1][:1]
        overlaps.append(float(box_iou(torch.from_numpy(best), truth.boxes)))
    assert np.mean(overlaps) > 0.6, overlaps
    scores = outputs.probability
    assert bool((scores[:, 1] > scores[:, [0, 2]].max(axis=1)).all())


def test_a_model_folder_gives_the_same_answers(tmp_path):
    model = shaken(tiny())
    model.card = card_for(model)
    model.save_pretrained(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert isinstance(again, RetinaNet)
    pixels = random_pixels(2)
    np.testing.assert_allclose(
        again.predict(pixels, ["Nodule"]).maps, model.predict(pixels).maps[:, 2:], atol=1e-6
    )
    both = model.predict(pixels).detections, again.predict(pixels).detections
    for mine, other in zip(*both, strict=True):
        np.testing.assert_allclose(mine.boxes, other.boxes, atol=1e-4)
    with pytest.raises(ConfigError, match="Hernia"):
        model.predict(pixels, ["Hernia"])


def test_features_of_the_pyramid_have_one_width():
    model = tiny()
    levels = model.pyramid(torch.rand(2, SIZE, SIZE))
    assert [tuple(level.shape) for level in levels] == [
        (2, 16, SIZE // stride, SIZE // stride) for stride in STRIDES
    ]
