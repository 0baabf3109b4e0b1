import hashlib
import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch

from dwarf_cxr import prediction
from dwarf_cxr.data.images import read_grey, resize
from dwarf_cxr.errors import CheckpointError, ConfigError, ImageError
from dwarf_cxr.models.checkpoint import load_model, save_model
from dwarf_cxr.models.vlm import build_classifier
from dwarf_cxr.prediction import (
    Film,
    FilmPrediction,
    FindingPrediction,
    ModelIdentity,
    boxes_of,
    boxes_present,
    picture_names,
    predict,
    read_prompts,
    score_words,
    summary_of,
)
from tests import dicom_files
from tests.reporting.made import FINDINGS, ODD, SIZE, tiny_model, write_data
from tests.tiny import card_for, settings, write_bert, write_vit


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("made") / "data")


@pytest.fixture(scope="module")
def model_folder(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    model = tiny_model(data)
    # an identity head on a random encoder gives nearly flat maps; these have hills
    for head in model.heads:
        torch.nn.init.normal_(head.weight, std=20)
    save_model(model, folder)
    return folder


def write_film(path, *, seed=0, width=93, height=70):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(pixels, (9, 9), 0))
    return path


def predictions(out):
    return json.loads((out / "predictions.json").read_text(encoding="utf-8"))


def naive_boxes(map_, threshold):
    """Flood fill over sets of pixels."""
    waiting = {(int(y), int(x)) for y, x in np.argwhere(map_ >= threshold)}
    found = []
    while waiting:
        part, edge = set(), [waiting.pop()]
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            around = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & waiting
            waiting -= around
            edge.extend(around)
        rows, columns = [y for y, _ in part], [x for _, x in part]
        score = max(float(map_[pixel]) for pixel in part)
        found.append((min(columns), min(rows), max(columns) + 1, max(rows) + 1, score))
    return sorted(found)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8, 1.1])
def test_boxes_match_a_flood_fill(threshold):
    rng = np.random.default_rng(5)
    map_ = cv2.resize(rng.random((7, 9)).astype(np.float32), (45, 28))
    boxes = boxes_of(map_, threshold)
    flat = [(box["x1"], box["y1"], box["x2"], box["y2"], box["score"]) for box in boxes]
    assert sorted(flat) == naive_boxes(map_, threshold)
    assert [box["score"] for box in boxes] == sorted((b["score"] for b in boxes), reverse=True)


def test_record_of_an_image(model_folder, tmp_path):
    film = write_film(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    assert predict(model_folder, [film], out) == out / "predictions.json"
    (image,) = predictions(out)["images"]
    assert image["source"] == str(film)
    assert image["sha256"] == hashlib.sha256(film.read_bytes()).hexdigest()
    assert (image["width"], image["height"]) == (93, 70)
    assert image["model"]["method"] == "dwarf"
    weights = (model_folder / "model.safetensors").read_bytes()
    assert image["model"]["sha256"] == hashlib.sha256(weights).hexdigest()
    expected = load_model(model_folder).predict(resize(read_grey(film), SIZE)[None])
    assert list(image["findings"]) == list(FINDINGS)
    for index, said in enumerate(image["findings"].values()):
        assert said["score"] == float(expected.probability[0, index])
        assert said["threshold"] == 0.5
        assert said["present"] == (said["score"] >= 0.5)
        large = torch.nn.functional.interpolate(
            torch.from_numpy(expected.maps[:, index : index + 1]),
            (70, 93),
            mode="bilinear",
            align_corners=False,
        )[0, 0].numpy()
        boxes, naive = [tuple(box.values()) for box in said["boxes"]], naive_boxes(large, 0.5)
        near = [np.allclose(a, b, atol=1e-5) for a, b in zip(sorted(boxes), naive, strict=True)]
        assert boxes
        assert all(near)
        if said["present"]:
            map_ = cv2.imread(str(out / said["map"]), cv2.IMREAD_UNCHANGED)
            assert map_.dtype == np.uint16
            np.testing.assert_allclose(map_ / 65535, large, atol=2e-5)


def test_pictures_have_the_size_of_the_image_and_only_present_findings_get_one(data, tmp_path):
    model = tiny_model(data)
    films = [write_film(tmp_path / "in" / f"{n}.png", seed=n, width=80 + n) for n in range(2)]
    pixels = np.stack([resize(read_grey(film), SIZE) for film in films])
    scores = model.predict(pixels).probability
    first, second, third = FINDINGS
    thresholds = {first: 0.0, second: 1.0, third: float(scores[:, 2].mean())}
    object.__setattr__(model.card, "score_thresholds", thresholds)
    save_model(model, tmp_path / "model")
    predict(tmp_path / "model", films, tmp_path / "out")
    for row, image in enumerate(predictions(tmp_path / "out")["images"]):
        said = image["findings"]
        assert [one["present"] for one in said.values()] == [
            True,
            False,
            scores[row, 2] >= scores[:, 2].mean(),
        ]
        assert "overlay" not in said[second]
        pictures = [image["overlay"], said[first]["overlay"], said[first]["map"]]
        for name in pictures:
            picture = cv2.imread(str(tmp_path / "out" / name))
            height, width = picture.shape[:2]
            assert width == 80 + row
            # a caption stands below the film, a map has none
            assert height == 70 if name.endswith("-map.png") else height > 70


def test_without_thresholds_nothing_is_called_present(data, tmp_path):
    save_model(tiny_model(data, threshold=None), tmp_path / "model")
    predict(tmp_path / "model", [write_film(tmp_path / "a.png")], tmp_path / "out")
    (image,) = predictions(tmp_path / "out")["images"]
    for said in image["findings"].values():
        assert (said["threshold"], said["present"], said["boxes"]) == (None, None, [])
    assert (tmp_path / "out" / image["overlay"]).is_file()


def test_bad_images_are_all_named_and_good_ones_done(model_folder, tmp_path):
    good = [write_film(tmp_path / f"good{n}.png", seed=n) for n in range(2)]
    page = tmp_path / "page.png"
    page.write_text("<html>not found</html>", encoding="utf-8")
    missing = tmp_path / "missing.png"
    out = tmp_path / "out"
    with pytest.raises(ImageError) as raised:
        predict(model_folder, [page, good[0], missing, good[1]], out, save_maps=True)
    assert str(raised.value).startswith("2 of 4 images failed, the other 2 are in")
    for name in (page, missing):
        assert sum(str(name) in line for line in str(raised.value).splitlines()) == 1
    written = predictions(out)
    assert [image["source"] for image in written["images"]] == [str(film) for film in good]
    assert len(written["faults"]) == 2
    assert np.load(out / "maps.npz", allow_pickle=False)["maps"].shape[0] == 2


def test_a_blank_film_is_answered_with_a_warning(model_folder, tmp_path):
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((20, 30), 7, dtype=np.uint8))
    lines = []
    predict(
        model_folder,
        [blank, write_film(tmp_path / "film.png")],
        tmp_path / "out",
        progress=lambda line, done, planned: lines.append(line),
    )
    images = predictions(tmp_path / "out")["images"]
    assert [len(image["warnings"]) for image in images] == [1, 0]
    assert "every pixel is 7" in images[0]["warnings"][0]
    assert sum(str(blank) in line for line in lines if line.startswith("warning")) == 1


def test_pictures_of_findings_with_alike_names_do_not_overwrite_each_other():
    findings = ["A", "a", "A map", "Overlay", "B map", "B"]
    files = picture_names(findings)
    assert files[0] == "a"
    pictures = [f"{file}{end}.png" for file in files for end in ("", "-map")] + ["overlay.png"]
    assert len(set(pictures)) == 2 * len(findings) + 1


def test_only_bad_images_write_nothing(model_folder, tmp_path):
    with pytest.raises(ImageError, match="nothing was written"):
        predict(model_folder, [tmp_path / "missing.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_equal_names_do_not_overwrite_each_other(model_folder, tmp_path):
    names = ["one/a.png", "two/a.png", "three/a-2.png", "four/A.png"]
    films = [write_film(tmp_path / name, seed=n) for n, name in enumerate(names)]
    predict(model_folder, films, tmp_path / "out")
    images = predictions(tmp_path / "out")["images"]
    folders = [image["overlay"].split("/")[0] for image in images]
    assert folders[0] == "a"
    assert folders[2] == "a-2"
    assert len({folder.lower() for folder in folders}) == 4
    assert [image["source"] for image in images] == [str(film) for film in films]


def test_names_of_findings_cannot_leave_the_folder(data, tmp_path):
    findings = ("../../up", "..", ODD)
    model = tiny_model(data, findings=findings, threshold=0.0)
    save_model(model, tmp_path / "model")
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    film = write_film(tmp_path / "a.png")
    predict(tmp_path / "model", [film], tmp_path / "out")
    after = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    assert after - before == {film}
    assert len(list((tmp_path / "out" / "a").iterdir())) == 1 + 2 * len(findings)


def test_maps_file(model_folder, tmp_path):
    films = [write_film(tmp_path / f"{n}.png", seed=n) for n in range(18)]
    asked = [FINDINGS[2], FINDINGS[0]]
    predict(model_folder, films, tmp_path / "out", findings=asked, save_maps=True)
    with np.load(tmp_path / "out" / "maps.npz", allow_pickle=False) as file:
        assert file["maps"].dtype == np.float32
        assert file["maps"].shape == (18, 2, 4, 4)
        assert list(file["images"]) == [str(film) for film in films]
        assert list(file["findings"]) == asked
        assert str(file["domain"]) == "unit"
        pixels = np.stack([resize(read_grey(film), SIZE) for film in films])
        expected = load_model(model_folder).predict(pixels, asked).maps
        np.testing.assert_allclose(file["maps"], expected, atol=1e-5)
    images = predictions(tmp_path / "out")["images"]
    assert all(list(image["findings"]) == asked for image in images)


def test_other_words_change_the_score_of_their_finding_alone(tmp_path):
    vit, bert = write_vit(tmp_path / "vit"), write_bert(tmp_path / "bert")
    names = ("Mass", "Effusion", "Nodule")
    model = build_classifier(settings(vit, bert).model, names, SIZE, 3)
    model.card = card_for(model)
    save_model(model, tmp_path / "model")
    film = write_film(tmp_path / "a.png")
    words = tmp_path / "words.yaml"
    words.write_text("Effusion: fluid around the lungs\n", encoding="utf-8")
    predict(tmp_path / "model", [film], tmp_path / "plain")
    predict(tmp_path / "model", [film], tmp_path / "asked", prompts=words)
    plain, asked = (predictions(tmp_path / name)["images"][0] for name in ("plain", "asked"))
    same = {
        name: plain["findings"][name]["score"] == pytest.approx(asked["findings"][name]["score"])
        for name in names
    }
    assert same == {"Mass": True, "Effusion": False, "Nodule": True}
    assert asked["model"]["prompts"] == {"Effusion": "fluid around the lungs"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- Effusion", "expected lines of 'finding: words'"),
        ("", "expected lines of 'finding: words'"),
        ("Effusion: 3", "write the words as text"),
        ("Effusion: ''", "write the words as text"),
        ("Effusion: [", "not valid YAML"),
    ],
)
def test_wrong_prompts_are_refused(tmp_path, content, words):
    file = tmp_path / "words.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_prompts(file)


def test_wrong_questions_are_refused(model_folder, tmp_path):
    film = write_film(tmp_path / "a.png")
    words = tmp_path / "words.yaml"
    words.write_text("Hernia: stomach in the chest\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="Hernia"):
        predict(model_folder, [film], tmp_path / "out", prompts=words)
    with pytest.raises(ConfigError, match="Hernia"):
        predict(model_folder, [film], tmp_path / "out", findings=["Hernia"])
    with pytest.raises(ConfigError, match="no image is given"):
        predict(model_folder, [], tmp_path / "out")
    with pytest.raises(ConfigError, match="no such file"):
        predict(model_folder, [film], tmp_path / "out", prompts=tmp_path / "none.yaml")
    with pytest.raises(CheckpointError, match="no model there"):
        predict(tmp_path, [film], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_folder_serves_too(data, model_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(model_folder, run / "model")
    (run / "config.yaml").write_text("method: dwarf\n", encoding="utf-8")
    film = write_film(tmp_path / "a.png")
    predict(run, [film], tmp_path / "one")
    predict(model_folder, [film], tmp_path / "two")
    one, two = (predictions(tmp_path / name)["images"][0] for name in ("one", "two"))
    assert one["findings"] == two["findings"]
    assert one["model"]["sha256"] == two["model"]["sha256"]


def test_images_named_like_the_result_files_do_not_take_their_place(model_folder, tmp_path):
    names = ("predictions.json.png", "maps.npz.png")
    films = [write_film(tmp_path / "in" / name, seed=n) for n, name in enumerate(names)]
    predict(model_folder, films, tmp_path / "out", save_maps=True)
    assert [image["source"] for image in predictions(tmp_path / "out")["images"]] == [
        str(film) for film in films
    ]
    with np.load(tmp_path / "out" / "maps.npz") as stored:
        assert len(stored["maps"]) == 2


def test_maps_of_an_earlier_call_do_not_stay_beside_other_predictions(model_folder, tmp_path):
    films = [write_film(tmp_path / "in" / f"{n}.png", seed=n) for n in range(2)]
    predict(model_folder, films[:1], tmp_path / "out", save_maps=True)
    assert (tmp_path / "out" / "maps.npz").is_file()
    predict(model_folder, films, tmp_path / "out")
    assert not (tmp_path / "out" / "maps.npz").exists()


def test_films_of_an_earlier_call_are_not_mixed_with_others(model_folder, tmp_path):
    films = [write_film(tmp_path / "in" / f"{n}.png", seed=n) for n in range(2)]
    out = tmp_path / "out"
    predict(model_folder, films[:1], out)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    with pytest.raises(
        ConfigError, match=r"holds predictions of other films \(0\); choose another"
    ):
        predict(model_folder, films[1:], out)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    shutil.rmtree(out / "0")  # removed by hand: nothing to be mixed with
    predict(model_folder, films[1:], out)
    assert [image["source"] for image in predictions(out)["images"]] == [str(films[1])]


def model_that_calls(data, folder, *present):
    """A model that calls these findings present, and no other."""
    model = tiny_model(data)
    calls = {finding: 0.0 if finding in present else 1.0 for finding in FINDINGS}
    object.__setattr__(model.card, "score_thresholds", calls)
    save_model(model, folder)
    return folder


def write_words(predicted, folder, *, faults):
    (folder / "words.txt").write_text("words")
    return {"words": folder / "words.txt"}


def test_results_of_an_earlier_call_do_not_stay_beside_new_ones(data, tmp_path):
    first, second, third = FINDINGS
    one = model_that_calls(data, tmp_path / "one", first, second)
    two = model_that_calls(data, tmp_path / "two", second, third)
    film = write_film(tmp_path / "in" / "a.png", seed=3)
    out = tmp_path / "out"
    predict(one, [film], out, write_more=write_words)
    notes = [out / "a" / name for name in ("notes.txt", "mine.png", "report.dcm")]
    for note in notes:
        note.write_text("the user's own")
    predict(two, [film], out)
    (image,) = predictions(out)["images"]
    said = image["findings"]
    named = [
        image["overlay"],
        *(said[name][kind] for name in (second, third) for kind in ("overlay", "map")),
    ]
    assert set((out / "a").iterdir()) == {*(out / name for name in named), *notes}
    predict(one, [film], out, findings=[third])
    assert set((out / "a").iterdir()) == {out / "a" / "overlay.png", *notes}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"images": 3}',
        '{"images": [{"findings": {}, "overlay": "../in/a.png"}]}',
        '{"images": [{"findings": {}, "overlay": "a/../../in/a.png"}]}',
        '{"images": [{"findings": {}, "overlay": "/etc", "files": {"y": "a/.."}}]}',
    ],
)
def test_predictions_of_another_hand_do_no_harm(model_folder, tmp_path, content):
    film = write_film(tmp_path / "in" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.json").write_text(content)
    predict(model_folder, [film], tmp_path / "out")
    assert film.is_file()
    assert len(predictions(tmp_path / "out")["images"]) == 1


def test_pictures_are_removed_without_a_record_of_them_too(data, tmp_path):
    first, second, _ = FINDINGS
    film = write_film(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    predict(model_that_calls(data, tmp_path / "one", first), [film], out)
    (out / "predictions.json").unlink()  # as after a call that was killed
    predict(model_that_calls(data, tmp_path / "two", second), [film], out)
    assert len(list((out / "a").iterdir())) == 3


def test_a_dicom_film_is_answered_as_its_png(model_folder, tmp_path):
    stored = dicom_files.film(70, 93)
    png, dcm = tmp_path / "in" / "film.png", tmp_path / "in" / "study" / "film.dcm"
    dcm.parent.mkdir(parents=True)
    cv2.imwrite(str(png), stored)
    dcm.write_bytes(
        dicom_files.dicom_bytes(
            4095 - stored, photometric="MONOCHROME1", patient_name="SMITH^JOHN", patient_id="4711"
        )
    )
    out = tmp_path / "out"
    predict(model_folder, [png, dcm], out)
    first, second = predictions(out)["images"]
    assert (second["width"], second["height"]) == (93, 70)
    assert second["overlay"] == "film-2/overlay.png"
    for finding in FINDINGS:
        scores = [image["findings"][finding]["score"] for image in (first, second)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    for path in out.rglob("*.*"):
        content = path.read_bytes()
        assert b"SMITH" not in content


@pytest.mark.parametrize(
    ("score", "threshold", "words"),
    [
        (0.87, 0.42, "0.87 (present from 0.42)"),
        (0.0040, 0.0036, "0.0040 (present from 0.0036)"),
        (0.42, 0.42, "0.42 (present from 0.42)"),
        (0.3, None, "0.30"),
    ],
)
def test_a_score_is_told_from_its_threshold(score, threshold, words):
    grid = np.zeros((2, 3), dtype=np.float32)
    said = FindingPrediction("Mass", score, threshold, True, 0.5, grid, ())
    assert score_words(said) == words


def test_a_finding_keeps_its_place_whatever_else_is_present(tmp_path):
    film = Film(tmp_path / "a.png", "0" * 64, np.zeros((30, 40), dtype=np.uint8))
    grid = np.zeros((2, 3), dtype=np.float32)
    box = {"x1": 1.0, "y1": 2.0, "x2": 9.0, "y2": 8.0, "score": 0.9}
    absent = FindingPrediction("Mass", 0.1, 0.5, False, 0.5, grid, (box,))
    present = FindingPrediction("Nodule", 0.9, 0.5, True, 0.5, grid, (box,))
    identity = ModelIdentity("dwarf", "R", "0" * 64, {})
    drawn = boxes_present(FilmPrediction(film, identity, (absent, present)))
    assert drawn == [("Mass", ()), ("Nodule", (box,))]


def answer(tmp_path, *findings, attributes=None):
    film = Film(tmp_path / "a.png", "0" * 64, np.zeros((30, 40), dtype=np.uint8))
    identity = ModelIdentity("report-attention", "R", "0" * 64, {})
    return FilmPrediction(film, identity, findings, attributes or {})


def test_a_finding_that_is_present_and_nowhere_is_said_to_be(tmp_path):
    grid = np.zeros((2, 3), dtype=np.float32)
    box = {"x1": 1.0, "y1": 2.0, "x2": 9.0, "y2": 8.0, "score": 0.9}
    findings = [
        FindingPrediction("Mass", 0.9, 0.5, True, 0.25, grid, ()),
        FindingPrediction("Nodule", 0.8, 0.5, True, 0.25, grid, (box,)),
        FindingPrediction("Effusion", 0.7, 0.5, True, None, grid, ()),
        FindingPrediction("Edema", 0.1, 0.5, False, 0.25, grid, ()),
    ]
    reasons = [said.no_box for said in findings]
    assert "0.250" in reasons[0]
    assert "no threshold" in reasons[2]
    assert reasons[1] is reasons[3] is None
    assert summary_of(answer(tmp_path, *findings)) == [
        "Called present: Mass 0.90 (no box), Nodule 0.80, Effusion 0.70 (no box)"
    ]


def test_why_there_is_no_box_stands_in_the_record_and_on_the_picture(data, tmp_path, monkeypatch):
    model = tiny_model(data)
    first, second, third = FINDINGS
    calls = {first: 0.0, second: 0.0, third: 1.0}
    object.__setattr__(model.card, "score_thresholds", calls)
    object.__setattr__(model.card, "map_thresholds", {first: 1.0, second: 0.0, third: 1.0})
    save_model(model, tmp_path / "model")
    captions = []
    real = prediction.captioned
    monkeypatch.setattr(
        prediction,
        "captioned",
        lambda picture, lines: captions.append(lines) or real(picture, lines),
    )
    predict(tmp_path / "model", [write_film(tmp_path / "a.png")], tmp_path / "out")
    said = predictions(tmp_path / "out")["images"][0]["findings"]
    assert said[first]["boxes"] == []
    assert "1.000" in said[first]["no_box"]
    assert said[second]["no_box"] is said[third]["no_box"] is None
    assert [any("No box" in line for line in lines) for lines in captions] == [True, False, False]
    assert f"{first} {said[first]['score']:.2f} (no box)" in captions[-1][0]


def test_likely_attributes_stand_below_the_film(tmp_path):
    told = {"left": 0.2, "lower": 0.91, "opacity": 0.5, "hazy": 0.49}
    lines = summary_of(answer(tmp_path, attributes=told))
    assert lines[1:] == ["Attributes: lower 0.91, opacity 0.50"]
    lines = summary_of(answer(tmp_path, attributes={"left": 0.2, "hazy": 0.3}))
    assert lines[1:] == ["Attributes: none from 0.50; the likeliest is hazy 0.30"]
    many = {f"a{number}": 0.6 + number / 100 for number in range(9)}
    assert summary_of(answer(tmp_path, attributes=many))[1].endswith("a3 0.63 and 3 more")
