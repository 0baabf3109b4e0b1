from contextlib import closing

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from dwarf_cxr.data.geometry import rasterise
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.review.command import scored_films
from dwarf_cxr.review.folder import begin
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.pages import application
from dwarf_cxr.review.suggestions import open_suggestions, outlines, suggest
from dwarf_cxr.web.links import Links, Visitor
from tests.review.made import FINDINGS, HEIGHT, SECRET_NAME, WIDTH, write_data
from tests.review.told import Boxed, Told, use


@pytest.mark.parametrize("frame", [(300, 420), (190, 90)])
def test_outlines_are_where_the_map_on_the_film_reaches_the_threshold(frame):
    rng = np.random.default_rng(3)
    for _ in range(4):
        map_ = cv2.GaussianBlur(rng.random((14, 11), dtype=np.float32), (0, 0), 1.5)
        cut = float(np.quantile(map_, 0.75))
        parts = outlines(map_, cut, frame)
        found = rasterise(parts, frame)
        large = cv2.resize(map_, frame, interpolation=cv2.INTER_LINEAR) >= cut
        # holes are filled and specks left out, of which the oracle knows nothing
        count, labels, sizes, _ = cv2.connectedComponentsWithStats(large.astype(np.uint8))
        big = [n for n in range(1, count) if sizes[n, cv2.CC_STAT_AREA] > 0.002 * large.size]
        contours = cv2.findContours(
            np.isin(labels, big).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )[0]
        filled = cv2.drawContours(np.zeros(large.shape, np.uint8), contours, -1, 1, -1) > 0
        assert (found & filled).sum() / (found | filled).sum() > 0.93


def test_a_map_that_reaches_everywhere_is_the_whole_film():
    parts = outlines(np.full((4, 4), 0.5, np.float32), 0.5, (40, 30))
    assert len(parts) == 1
    assert rasterise(parts, (40, 30)).all()
    assert outlines(np.zeros((4, 4), np.float32), 0.5, (40, 30)) == ()


def test_specks_are_left_out_and_the_largest_comes_first():
    map_ = np.zeros((64, 64), np.float32)
    map_[4:10, 4:10] = 1
    map_[30:60, 30:60] = 1
    map_[2, 60] = 0.501  # its peak alone reaches .5
    large, small = outlines(map_, 0.5, (640, 640))
    assert large.points.mean() > small.points.mean()


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", films=7)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_suggestions_are_computed_once_and_resumed(data, run, tmp_path, monkeypatch):
    model = Told((FINDINGS[1], FINDINGS[0]), 32)
    use(monkeypatch, model)
    review = tmp_path / "review"
    first = suggest(review, run, data, FINDINGS)
    assert model.asked == 7
    assert first.about.findings == (FINDINGS[0], FINDINGS[1])
    (review / "suggestions" / "part-00001.npz").unlink()
    assert open_suggestions(review, data) is None
    again = suggest(review, run, data, FINDINGS)
    assert model.asked == 10
    assert np.array_equal(again.scores, first.scores)
    suggest(review, run, data, FINDINGS)
    assert model.asked == 10
    opened = open_suggestions(review, data)
    assert opened.score(6, "Effusion") == pytest.approx(opened.score(6, "Mass") / 2)
    assert opened.score(6, "Nodule") is None
    assert opened.map_of(5, "Mass")[1:3, 2:4].min() == 1
    (outline,) = opened.regions(5, "Mass", (WIDTH, HEIGHT))
    left, top = outline.points.min(axis=0)
    assert (left, top) == pytest.approx((WIDTH * 2 / 6, HEIGHT / 6), abs=3)
    assert SECRET_NAME not in "".join(map(str, (review / "suggestions").rglob("*")))


def test_another_model_or_other_data_starts_anew(data, run, tmp_path, monkeypatch):
    model = Told(FINDINGS, 32)
    use(monkeypatch, model)
    suggest(tmp_path / "review", run, data, FINDINGS)
    (run / "model.safetensors").write_bytes(b"others")
    suggest(tmp_path / "review", run, data, FINDINGS)
    assert model.asked == 14
    other = write_data(tmp_path / "other", films=5)
    assert open_suggestions(tmp_path / "review", other) is None


def test_a_detector_suggests_its_own_boxes(data, run, tmp_path, monkeypatch):
    use(monkeypatch, Boxed(FINDINGS, 32))
    told = suggest(tmp_path / "review", run, data, ("Mass", "Effusion"))
    (box,) = told.regions(4, "Mass", (WIDTH, HEIGHT))
    assert (box.x1, box.y1, box.x2, box.y2) == (WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    (other,) = told.regions(6, "Effusion", (WIDTH, HEIGHT))
    assert (other.x1, other.y1, other.x2, other.y2) == (0, 0, WIDTH / 2, HEIGHT)


def test_a_model_of_other_findings_is_refused(data, run, tmp_path, monkeypatch):
    use(monkeypatch, Told(("Hernia",), 32))
    with pytest.raises(ConfigError, match="Hernia"):
        suggest(tmp_path / "review", run, data, FINDINGS)
    assert PreparedData.open(data.folder).fingerprint == data.fingerprint


def test_an_order_that_was_asked_for_stays_when_the_run_is_named_again(
    data, run, tmp_path, monkeypatch
):
    use(monkeypatch, Told(FINDINGS, 32))
    names = tmp_path / "mine.txt"
    names.write_text(f"{data.image_ids[4]}\n{data.image_ids[2]}\n")
    folder = tmp_path / "review"
    assert begin(folder, data.folder).settings.order == "data"
    assert begin(folder, data.folder, run=run).settings.order == "uncertainty"
    assert (
        begin(folder, data.folder, run=run, order="disagreement").settings.order == "disagreement"
    )
    assert begin(folder, data.folder, run=run).settings.order == "disagreement"
    begin(folder, data.folder, order=str(names))
    names.unlink()
    settings = begin(folder, data.folder, run=run).settings
    assert settings.order == str(names)
    assert settings.films == (4, 2)
    begin(folder, data.folder, order="data")
    assert begin(folder, data.folder, run=run).settings.order == "data"


def test_whose_films_are_queued(data, run, tmp_path, monkeypatch):
    use(monkeypatch, Told(FINDINGS, 32))
    folder = tmp_path / "review"
    assert data.splits == ("train", "train", "val", "test", "train", "train", "val")

    def queued(**options):
        review = begin(folder, data.folder, **options)
        return set(review.settings.films), scored_films(review)

    assert queued() == (set(range(7)), None)
    films, warning = queued(run=run)
    assert films == set(range(7))
    assert warning.startswith("3 films of the val and test splits: ")
    assert queued(split="train") == ({0, 1, 4, 5}, None)
    assert queued() == ({0, 1, 4, 5}, None)
    assert queued(order="disagreement") == ({0, 1, 4, 5}, None)
    assert queued(split="test")[0] == {3}
    assert queued(split="all")[0] == set(range(7))
    with pytest.raises(ConfigError, match="--split validation: it can be train, val, test or all"):
        queued(split="validation")
    names = tmp_path / "mine.txt"
    names.write_text(f"{data.image_ids[4]}\n{data.image_ids[2]}\n")
    with pytest.raises(ConfigError, match="none of the 2 films"):
        queued(split="test", order=str(names))
    assert queued()[0] == set(range(7))


def test_only_regions_that_the_model_suggests_can_be_accepted(data, run, tmp_path, monkeypatch):
    use(monkeypatch, Told(FINDINGS, 32))
    review = begin(tmp_path / "review", data.folder, run=run, readers=["anna"])
    with closing(Ledger(review.database)) as ledger:
        links = Links.of(review.folder)
        client = TestClient(application(review, ledger, links), "http://localhost")
        client.get(links.path(Visitor("reader", "anna")))
        client.headers["X-CSRF-Token"] = links.form_token(Visitor("reader", "anna"))
        state = client.get("/films/2/state").json()
        (group,) = (one for one in state["suggestions"][0] if one["kind"] == "run")
        assert group["regions"]

        def accept(number):
            suggested = {"by": group["by"], "number": number}
            region = {"shape": group["regions"][0], "origin": "accepted", "suggested": suggested}
            words = {"verdict": "present", "regions": [region], "comment": ""}
            change = {"kind": "edit", "version": 0, "key": "k", "findings": {"0": words}}
            return client.post("/films/2/changes", json=change).status_code

        assert accept(len(group["regions"])) == 422
        assert accept(0) == 200


def test_an_answer_to_one_model_is_none_to_another(data, run, tmp_path, monkeypatch):
    use(monkeypatch, Told(FINDINGS, 32))

    def suggested():
        review = begin(tmp_path / "review", data.folder, run=run, readers=["anna"])
        with closing(Ledger(review.database)) as ledger:
            links = Links.of(review.folder)
            client = TestClient(application(review, ledger, links), "http://localhost")
            client.get(links.path(Visitor("reader", "anna")))
            groups = client.get("/films/2/state").json()["suggestions"][0]
        return next(group["by"] for group in groups if group["kind"] == "run")

    first = suggested()
    assert suggested() == first
    (run / "model.safetensors").write_bytes(b"others")
    assert suggested() != first
