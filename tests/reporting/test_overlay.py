import base64

import cv2
import numpy as np
import pytest

from dwarf_cxr.reporting.overlay import (
    DETECTED,
    OPACITY,
    TRUTH,
    blend,
    boxes_on_film,
    captioned,
    data_uri,
    film_picture,
    labelled_boxes,
    outlined,
    png_bytes,
)


def noise(height=90, width=130):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_map_of_zero_leaves_the_film_and_the_colour_grows_with_the_map():
    film = np.full((1, 4, 3), 80, dtype=np.uint8)
    drawn = blend(film, np.array([[0, 0.3, 0.8, 1]], dtype=np.float32))
    np.testing.assert_array_equal(drawn[0, 0], [80, 80, 80])
    yellow = np.array([253, 231, 37])  # the end of viridis
    np.testing.assert_allclose(drawn[0, 3], 80 * (1 - OPACITY) + yellow * OPACITY, atol=1)


@pytest.mark.parametrize("dashed", [False, True])
def test_outline_stays_near_the_border(dashed):
    film = noise(120, 150)
    mask = np.zeros((120, 150), dtype=bool)
    mask[40:80, 50:110] = True
    changed = (outlined(film, mask, (255, 0, 0), dashed=dashed) != film).any(axis=2)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7))) - cv2.erode(
        mask.astype(np.uint8), np.ones((9, 9))
    )
    assert changed.any()
    assert not changed[near == 0].any()


def test_outline_of_nothing_is_nothing():
    film = noise()
    np.testing.assert_array_equal(outlined(film, np.zeros(film.shape[:2], bool), (9, 9, 9)), film)


@pytest.mark.parametrize("shape", [(90, 130), (400, 300), (40, 64), (1000, 120)])
def test_caption_stands_below_the_film_and_covers_none_of_it(shape):
    film = np.full((*shape, 3), 120, dtype=np.uint8)
    text = ["Pleural Thickening 0.87 (present from 0.42)", "a_very_long_file_name_" * 4]
    drawn = captioned(film, text)
    np.testing.assert_array_equal(drawn[: shape[0]], film)
    band = drawn[shape[0] :]
    assert 0 < len(band) <= shape[0] * 0.5
    assert band.max() > 200
    # no letter touches the edges: it would be cut there
    for edge in (band[:, 0], band[:, -1], band[-1], band[0]):
        assert edge.max() < 120


def test_every_box_is_drawn_with_its_label_inside_the_picture():
    film = np.zeros((100, 140, 3), dtype=np.uint8)
    box = {"x1": 100.0, "y1": 2.0, "x2": 139.0, "y2": 60.0}
    drawn = labelled_boxes(film, [("Effusion", [box]), ("Mass", [])])
    assert drawn.shape == film.shape
    assert drawn[30, 100].any()
    assert not drawn[80:, :80].any()
    np.testing.assert_array_equal(labelled_boxes(film, []), film)


def share_of(drawn, colour, box):
    """How much of a box's border has the colour, about."""
    x1, y1, x2, y2 = map(int, box)
    border = [drawn[y1, x] for x in range(x1, x2)] + [drawn[y2 - 1, x] for x in range(x1, x2)]
    border += [drawn[y, x1] for y in range(y1, y2)] + [drawn[y, x2 - 1] for y in range(y1, y2)]
    return float(np.mean(np.abs(np.array(border, dtype=int) - colour).max(axis=1) < 60))


def test_true_boxes_are_solid_and_a_detectors_dashed_with_their_scores():
    film = np.full((300, 340, 3), 90, dtype=np.uint8)
    truths, found = np.array([[20.0, 40, 120, 150]]), np.array([[180.0, 120, 300, 250]])
    drawn = boxes_on_film(film, truths, found, np.array([0.37]))
    assert share_of(drawn, TRUTH, truths[0]) > 0.95
    assert 0.3 < share_of(drawn, DETECTED, found[0]) < 0.8
    changed = (drawn != film).any(axis=2)
    # the label lies above the box, and nothing far from both boxes has changed
    assert changed[104:118, 182:200].all()
    assert not changed[260:].any()
    assert not changed[:, 310:].any()


def test_scores_do_not_hide_each_other_where_there_is_room():
    film = np.full((300, 340, 3), 90, dtype=np.uint8)
    found = np.array([[150.0, 150, 200, 170], [152, 151, 201, 171], [150, 152, 202, 172]])
    none = np.zeros((0, 4))
    one = boxes_on_film(film, none, found[:1], np.array([0.9]))
    three = boxes_on_film(film, none, found, np.array([0.9, 0.8, 0.7]))
    plate = (np.abs(one.astype(int) - DETECTED).max(axis=2) < 4).sum()
    plates = (np.abs(three.astype(int) - DETECTED).max(axis=2) < 4).sum()
    assert plates > 2.5 * plate


def test_no_boxes_leave_the_film_and_one_beyond_the_frame_stays_in_it():
    film = noise(60, 80)
    none = np.zeros((0, 4))
    np.testing.assert_array_equal(boxes_on_film(film, none, none, np.zeros(0)), film)
    outside = np.array([[-20.0, 50, 200, 90], [79.9, 59.9, 80, 60]])
    assert boxes_on_film(film, none, outside, np.array([0.004, 1.0])).shape == film.shape


def test_encodings_keep_what_they_promise():
    picture = noise()
    content = base64.b64decode(data_uri(picture, lossless=True).split(",")[1])
    back = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(back[..., ::-1], picture)
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    back = cv2.imdecode(np.frombuffer(png_bytes(deep), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(back, deep)


def test_film_picture_has_the_frame_asked_for():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    assert film_picture(grey, (20, 10)).shape == (10, 20, 3)
    np.testing.assert_array_equal(film_picture(grey, (8, 6))[..., 1], grey)
