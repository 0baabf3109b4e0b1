import gzip
import hashlib
import json
import subprocess
import sys
import time
from collections import defaultdict

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco
from sklearn.metrics import roc_auc_score

from dwarf_cxr.data.synthetic import Film, FilmSettings, draw_film, read_synthetic
from dwarf_cxr.data.synthetic.films import patient_of
from dwarf_cxr.data.synthetic.raster import blur, smooth_curve
from dwarf_cxr.data.synthetic.reading import run_lengths
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.findings import CHESTX_DET_13

SMALL = FilmSettings(size=96)

BENDS_THE_CHEST = ("Atelectasis", "Cardiomegaly", "Emphysema")
LOCAL = tuple(name for name in CHESTX_DET_13 if name not in BENDS_THE_CHEST)

REAL_AREA = {
    "Atelectasis": 0.02387,
    "Calcification": 0.00301,
    "Cardiomegaly": 0.07852,
    "Consolidation": 0.08853,
    "Diffuse Nodule": 0.18175,
    "Effusion": 0.06643,
    "Emphysema": 0.22388,
    "Fibrosis": 0.05692,
    "Fracture": 0.00830,
    "Mass": 0.02128,
    "Nodule": 0.00664,
    "Pleural Thickening": 0.01082,
    "Pneumothorax": 0.01059,
}
"""Mean area of the union of a finding's polygons, as a share of the image, over the images that
show it: measured on the official ChestX-Det training annotations (3,025 images, 1024 px frame)."""


def one(finding: str, index: int, settings: FilmSettings = SMALL, seed: int = 5) -> Film:
    return draw_film(seed, index, settings, findings=(finding,))


def centroid(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) in parts of the film."""
    rows, columns = np.nonzero(mask)
    return columns.mean() / mask.shape[1], rows.mean() / mask.shape[0]


def test_films_are_square_bytes_with_masks_for_exactly_the_present_findings():
    for index in range(40):
        film = draw_film(3, index, SMALL)
        assert film.pixels.shape == (96, 96)
        assert film.pixels.dtype == np.uint8
        assert set(film.masks) <= set(CHESTX_DET_13)
        for mask in film.masks.values():
            assert mask.shape == (96, 96)
            assert mask.dtype == bool
            assert mask.any()
        sentences = film.text.count(".")
        assert sentences == max(1, len(film.masks))


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    code = (
        "import hashlib\n"
        "from dwarf_cxr.data.synthetic import FilmSettings, draw_film\n"
        "for index in (7, 2, 11):\n"
        "    film = draw_film(19, index, FilmSettings(size=112, prevalence=0.5))\n"
        "    print(hashlib.sha256(film.pixels.tobytes() + b''.join(\n"
        "        m.tobytes() for m in film.masks.values()) + film.text.encode()).hexdigest())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = []
    for index in (7, 2, 11):
        film = draw_film(19, index, FilmSettings(size=112, prevalence=0.5))
        parts = b"".join(mask.tobytes() for mask in film.masks.values())
        here.append(hashlib.sha256(film.pixels.tobytes() + parts + film.text.encode()).hexdigest())
    assert run.stdout.split() == here
    assert len(set(here)) == 3


def test_seeds_and_indices_give_different_films():
    films = [draw_film(seed, index, SMALL) for seed in (0, 1) for index in range(6)]
    assert len({film.pixels.tobytes() for film in films}) == len(films)


def test_two_of_three_films_share_a_patient_and_his_anatomy():
    assert [patient_of(index) for index in range(7)] == [0, 0, 1, 2, 2, 3, 4]
    # The hearts of one patient are alike in size; of strangers they differ more.
    heart = [one("Emphysema", index).masks["Emphysema"].sum() for index in range(60)]
    again = np.mean([abs(heart[i] - heart[i + 1]) for i in range(0, 60, 3)])
    other = np.mean([abs(heart[i + 1] - heart[i + 2]) for i in range(0, 60, 3)])
    assert again < other


@pytest.mark.parametrize("finding", LOCAL)
def test_a_local_finding_changes_its_mask_and_nothing_else(finding):
    changed, difference = [], []
    for index in range(8):
        film, twin = one(finding, index), draw_film(5, index, SMALL, findings=())
        moved = np.abs(film.pixels.astype(int) - twin.pixels)
        mask = film.masks[finding]
        assert not moved[~mask].any()
        changed.append((moved[mask] > 0).mean())
        difference.append(moved[mask].mean())
    assert np.mean(changed) > 0.85
    assert np.mean(difference) > 3, "too faint to be learnt"


@pytest.mark.parametrize("finding", BENDS_THE_CHEST)
def test_a_finding_that_bends_the_chest_changes_it_within_its_mask(finding):
    for index in range(6):
        film, twin = one(finding, index), draw_film(5, index, SMALL, findings=())
        moved = np.abs(film.pixels.astype(int) - twin.pixels)[film.masks[finding]]
        assert moved.mean() > 4


@pytest.mark.parametrize("finding", LOCAL)
def test_grey_alone_does_not_give_a_lesion_away(finding):
    """Learnable, not trivial: within the film a threshold does not cut the lesion out."""
    areas = []
    for index in range(8):
        film = one(finding, index)
        mask = film.masks[finding].ravel()
        area = roc_auc_score(mask, film.pixels.ravel().astype(float))
        areas.append(max(area, 1 - area))
    assert np.mean(areas) < 0.98


@pytest.mark.parametrize("finding", CHESTX_DET_13)
def test_masks_are_as_large_as_the_real_ones(finding):
    drawn = np.mean([one(finding, index).masks[finding].mean() for index in range(40)])
    assert REAL_AREA[finding] / 2 < drawn < REAL_AREA[finding] * 2


@pytest.mark.data
def test_the_table_of_real_areas_is_what_the_annotations_say(shared_data):
    with gzip.open(shared_data / "annotations" / "ChestX_Det_train.json.gz") as stream:
        rows = json.load(stream)
    areas = defaultdict(list)
    for row in rows:
        unions = {}
        for finding, points in zip(row["syms"], row["polygons"], strict=True):
            union = unions.setdefault(finding, np.zeros((256, 256), np.uint8))
            cv2.fillPoly(union, [np.round(np.array(points) * 4 - 8).astype(np.int32)], 1, shift=4)
        for finding, union in unions.items():
            areas[finding].append(union.mean())
    for finding, area in REAL_AREA.items():
        assert np.mean(areas[finding]) == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("finding", CHESTX_DET_13)
def test_a_mask_is_the_same_place_at_every_size(finding):
    for index in range(3):
        small = one(finding, index, FilmSettings(size=128)).masks[finding]
        large = one(finding, index, FilmSettings(size=384)).masks[finding].astype(np.float32)
        shrunk = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA) >= 0.5
        # Places are rounded to pixels: a thin mask may lie a pixel beside its larger twin.
        for mask, other in ((small, shrunk), (shrunk, small)):
            near = cv2.dilate(other.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            assert near[mask].mean() > 0.97
        rim = small.sum() - cv2.erode(small.astype(np.uint8), np.ones((3, 3), np.uint8)).sum()
        assert abs(int(shrunk.sum()) - int(small.sum())) <= rim


def test_effusion_lies_low_and_beside_the_midline():
    heights, sides = [], []
    for index in range(30):
        film = one("Effusion", index)
        mask = film.masks["Effusion"]
        heights.append(centroid(mask)[1])
        assert np.nonzero(mask)[0].max() > 0.6 * 96, "the fluid reaches the costophrenic angle"
        left, right = mask[:, :48].sum(), mask[:, 48:].sum()
        sides.append(max(left, right) / mask.sum())
        if "ilateral" in film.text or "both" in film.text:
            assert min(left, right) > 0
        else:
            # The image's left is the patient's right.
            assert ("right" in film.text.lower()) == (left > right)
    assert np.mean(heights) > 0.58
    assert np.mean(sides) > 0.6


def test_a_large_heart_spans_the_midline_and_leans_to_the_image_right():
    for index in range(20):
        mask = one("Cardiomegaly", index).masks["Cardiomegaly"]
        assert mask[52:70, 46:51].mean() > 0.6
        x, y = centroid(mask)
        assert 0.48 < x < 0.66
        assert 0.5 < y < 0.8
        normal = one("Emphysema", index).masks["Emphysema"]
        width = np.ptp(np.nonzero(mask)[1])
        assert 0.3 < width / 96 < 0.55
        assert normal.any(axis=0).sum() > width


def test_pneumothorax_is_a_high_dark_rim_without_markings():
    settings = FilmSettings(size=224)
    for index in range(12):
        film = one("Pneumothorax", index, settings)
        twin = draw_film(5, index, settings, findings=())
        mask = film.masks["Pneumothorax"]
        assert centroid(mask)[1] < 0.45
        darker = twin.pixels[mask].astype(int) - film.pixels[mask]
        assert np.median(darker) > 4


def test_emphysema_flattens_and_lowers_the_diaphragm():
    lower = []
    for index in range(0, 30, 3):
        film = one("Emphysema", index)
        twin = draw_film(5, index, SMALL, findings=())
        mask = film.masks["Emphysema"]
        lungs_of_both = mask.sum(axis=1)
        assert lungs_of_both[: 96 // 20].sum() == 0
        lower.append(twin.pixels[mask].mean() - film.pixels[mask].mean())
    assert np.mean(lower) > 15


@pytest.mark.parametrize(
    "finding", ["Mass", "Nodule", "Consolidation", "Fibrosis", "Diffuse Nodule", "Pneumothorax"]
)
def test_lung_lesions_lie_in_the_chest(finding):
    for index in range(15):
        film = one(finding, index)
        rows, columns = np.nonzero(film.masks[finding])
        assert rows.min() > 0.03 * 96
        assert rows.max() < 0.93 * 96
        assert columns.min() > 0.06 * 96
        assert columns.max() < 0.94 * 96


def test_prevalence_is_kept_by_name_and_for_all():
    settings = FilmSettings(size=64, prevalence={"Mass": 1.0, "Nodule": 0.0})
    assert all(set(draw_film(2, i, settings).masks) == {"Mass"} for i in range(10))
    half = FilmSettings(size=64, prevalence=0.5)
    counts = [len(draw_film(2, i, half).masks) for i in range(40)]
    assert np.mean(counts) == pytest.approx(6.5, abs=1.0)
    none = draw_film(2, 0, FilmSettings(size=64, prevalence=0.0))
    assert none.masks == {}
    assert none.text


def test_portable_follows_its_finding_only_when_asked_to():
    settings = FilmSettings(
        size=64, prevalence={"Effusion": 0.5}, portable_correlation=("Effusion", 0.9)
    )
    films = [draw_film(8, index, settings) for index in range(160)]
    present = np.array(["Effusion" in film.masks for film in films])
    portable = np.array(["PORTABLE" in film.markers for film in films])
    assert portable[present].mean() == pytest.approx(0.9, abs=0.1)
    assert portable[~present].mean() == pytest.approx(0.1, abs=0.1)
    plain = FilmSettings(size=64, prevalence={"Effusion": 0.5}, portable_share=0.5)
    portable = np.array(["PORTABLE" in draw_film(8, i, plain).markers for i in range(160)])
    assert abs(portable[present].mean() - portable[~present].mean()) < 0.2


def test_markers_are_seen_and_on_their_side():
    size = 224
    on = FilmSettings(size=size, prevalence=0.0, portable_share=1.0)
    off = FilmSettings(size=size, prevalence=0.0, portable_share=0.0)
    for index in range(10):
        marked, plain = draw_film(4, index, on), draw_film(4, index, off)
        assert set(marked.markers) - set(plain.markers) == {"PORTABLE"}
        letters = np.abs(marked.pixels.astype(int) - plain.pixels)
        assert letters.max() > 40
        assert (letters > 0).mean() < 0.04
        assert {"R", "L"} & set(plain.markers)


def test_a_correlated_marker_goes_with_the_finding_and_nothing_else_moves():
    settings = FilmSettings(size=96, portable_correlation=("Nodule", 1.0))
    film = draw_film(6, 1, settings, findings=("Nodule", "Mass"))
    twin = draw_film(6, 1, settings, findings=("Mass",))
    assert "PORTABLE" in film.markers
    assert "PORTABLE" not in twin.markers
    np.testing.assert_array_equal(film.masks["Mass"], twin.masks["Mass"])


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"size": 16}, "size"),
        ({"prevalence": 1.5}, "prevalence"),
        ({"prevalence": {"Measles": 0.1}}, "Measles"),
        ({"prevalence": {"Mass": -0.1}}, "Mass"),
        ({"portable_share": 2.0}, "portable_share"),
        ({"portable_correlation": ("Measles", 0.5)}, "Measles"),
        ({"portable_correlation": ("Mass", 1.5)}, "Mass"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong, word):
    with pytest.raises(ConfigError, match=word):
        FilmSettings(**wrong)


def test_wrong_calls_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="index"):
        draw_film(0, -1, SMALL)
    with pytest.raises(ConfigError, match="Measles"):
        draw_film(0, 0, SMALL, findings=("Measles",))
    for wrong in ({"films": 0, "seed": 1}, {"films": 1, "seed": -1}):
        with pytest.raises(ConfigError):
            read_synthetic(tmp_path, settings=SMALL, **wrong)
    with pytest.raises(ConfigError, match="workers"):
        read_synthetic(tmp_path, films=1, seed=1, settings=SMALL, workers=0)


def test_read_synthetic_describes_what_it_writes(tmp_path):
    calls = []
    settings = FilmSettings(size=80, prevalence=0.3)
    source = read_synthetic(
        tmp_path,
        films=9,
        seed=21,
        settings=settings,
        progress=lambda done, films: calls.append((done, films)),
    )
    assert calls == [(done, 9) for done in range(1, 10)]
    assert source.name == "synthetic"
    assert source.patients_of.startswith("synthetic, seed ")
    assert source.findings == CHESTX_DET_13
    assert len(source.radiographs) == 9
    for index, radiograph in enumerate(source.radiographs):
        film = draw_film(21, index, settings)
        assert radiograph.path == tmp_path / "films" / f"{index:06d}.png"
        pixels = cv2.imread(str(radiograph.path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(pixels, film.pixels)
        assert radiograph.labels == {name: name in film.masks for name in CHESTX_DET_13}
        assert radiograph.text == film.text
        assert radiograph.split is None
        assert {region.finding for region in radiograph.regions} == set(film.masks)
        for region in radiograph.regions:
            assert region.annotator == "generator"
            rle = {"size": [80, 80], "counts": list(region.shape.counts)}
            decoded = coco.decode(coco.frPyObjects(rle, 80, 80)).astype(bool)
            np.testing.assert_array_equal(decoded, film.masks[region.finding])
    assert len({radiograph.patient_id for radiograph in source.radiographs}) == 6


def test_drawing_is_shown(tmp_path, capsys):
    read_synthetic(tmp_path, films=3, seed=1, settings=SMALL)
    assert capsys.readouterr().err.splitlines() == [
        "drew 1 of 3 films", "drew 2 of 3 films", "drew 3 of 3 films",
    ]  # fmt: skip


def test_films_that_are_there_are_kept_and_damaged_ones_mended(tmp_path):
    read_synthetic(tmp_path, films=3, seed=1, settings=SMALL)
    first, second = (tmp_path / "films" / f"00000{index}.png" for index in (0, 1))
    kept, content = first.stat().st_mtime_ns, second.read_bytes()
    second.write_bytes(content[:50])
    read_synthetic(tmp_path, films=3, seed=1, settings=SMALL)
    assert first.stat().st_mtime_ns == kept
    assert second.read_bytes() == content
    assert sorted(path.name for path in (tmp_path / "films").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
    ]


def test_workers_change_nothing(tmp_path):
    alone = read_synthetic(tmp_path / "a", films=5, seed=2, settings=SMALL, workers=1)
    shared = read_synthetic(tmp_path / "b", films=5, seed=2, settings=SMALL, workers=2)
    for one_of, other in zip(alone.radiographs, shared.radiographs, strict=True):
        assert one_of.path.read_bytes() == other.path.read_bytes()
        assert one_of.labels == other.labels
        assert [r.shape.counts for r in one_of.regions] == [r.shape.counts for r in other.regions]


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_agree_with_coco(seed):
    mask = np.random.default_rng(seed).random((5, 9)) < (0.0, 0.3, 0.7, 1.0)[seed]
    counts = run_lengths(mask)
    assert sum(counts) == 45
    decoded = coco.decode(coco.frPyObjects({"size": [5, 9], "counts": list(counts)}, 5, 9))
    np.testing.assert_array_equal(decoded.astype(bool), mask)


def test_curves_pass_through_their_points():
    points = np.array([[0.0, 1.0], [2.0, 3.0], [5.0, 1.0]])
    curve = smooth_curve(points, 9)
    np.testing.assert_allclose(curve[[0, 4, 8]], points, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.5, 6.0])
def test_blurs_are_as_broad_as_they_say(sigma):
    spot = np.zeros((81, 81), np.float32)
    spot[40, 40] = 1
    spread = blur(spot, sigma)
    places = np.arange(81) - 40
    deviation = np.sqrt((spread.sum(axis=0) * places**2).sum() / spread.sum())
    assert deviation == pytest.approx(sigma, rel=0.2)


def test_a_core_draws_many_films_a_second():
    """100 a second at 224 px is the aim; the bound leaves room for slow, busy machines."""
    settings = FilmSettings()
    for index in range(3):
        draw_film(1, index, settings)
    rates = []
    for start in (10, 40, 70):
        begin = time.process_time()
        for index in range(start, start + 30):
            draw_film(1, index, settings)
        rates.append(30 / (time.process_time() - begin))
    print(f"{max(rates):.0f} films a second per core at 224 px")
    assert max(rates) > 30
