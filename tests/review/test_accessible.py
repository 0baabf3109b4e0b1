"""The review's pages by axe-core, and what axe cannot see."""

from contextlib import closing

import numpy as np
import pytest

from dwarf_cxr.data.geometry import encode_mask
from dwarf_cxr.review.annotation import shape_to_json
from dwarf_cxr.review.folder import begin
from dwarf_cxr.review.ledger import Ledger
from tests.review.desk import Desk
from tests.review.made import ABSENT, FINDINGS, box, present, write_data
from tests.review.told import Told, use

pytestmark = pytest.mark.browser


@pytest.fixture
def server(serve, tmp_path, monkeypatch):
    """Two readers differ on film 1; on film 2 there are only suggestions, of a model too."""
    data = write_data(tmp_path / "data", films=4)
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"weights")
    use(monkeypatch, Told(FINDINGS, 32))
    begin(tmp_path / "review", data.folder, run=run, order="data")
    started = serve(data.folder, "--readers", "anna,ben", "--adjudicator", "carla")
    with closing(Ledger(tmp_path / "review" / "review.db")) as ledger:
        said = {"Mass": present(box(4, 5, 40, 60)), "Effusion": present(box(50, 50, 80, 90))}
        ledger.edit(0, "anna", said, version=0, key="k")
        ledger.edit(0, "ben", {"Mass": ABSENT, "Effusion": ABSENT}, version=0, key="k")
    return started


def violations(desk):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    told = axe.Axe().run(desk.tab).response
    assert len(told["passes"]) > 5  # it did look
    return [
        (one["id"], one["impact"], [node["html"] for node in one["nodes"]])
        for one in told["violations"]
    ]


SIZES = [(1280, 800), (800, 1280)]


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def enter(server, browser, request):
    desks = []

    def at(reader):
        size = dict(zip(("width", "height"), request.param, strict=True))
        # axe is put into the page, which the page's policy would refuse
        desks.append(Desk(browser, server, reader, viewport=size, bypass_csp=True))
        return desks[-1]

    yield at
    for desk in desks:
        desk.close()


@pytest.mark.parametrize("reader", ["anna", "carla", "owner"])
def test_queue_adjudication_and_overview(enter, reader):
    assert violations(enter(reader)) == []


def test_a_film(enter):
    anna = enter("anna")
    anna.open(1)
    anna.press("q")
    assert violations(anna) == []
    anna.press("?")  # the list of keys opens
    anna.tab.wait_for_selector("#keys[open]")
    assert violations(anna) == []
    anna.tab.route("**/changes", lambda route: route.abort())
    anna.press("3")
    anna.tab.wait_for_selector("#saving[data-state=unsaved]")
    assert violations(anna) == []


@pytest.mark.parametrize("tool", ["b", "g", "m"])
def test_a_drawing_under_way(enter, tool):
    anna = enter("anna")
    anna.open(2)
    assert "Model" in anna.tab.locator("#suggestions").text_content()
    anna.press(tool, "Space", *["ArrowRight"] * 6)
    if tool == "g":
        anna.press("Space", *["ArrowDown"] * 6, "Space")
        anna.tab.wait_for_selector("#close-polygon:not([hidden])")
    assert violations(anna) == []


def test_a_film_that_is_decided_by_the_third(enter):
    carla = enter("carla")
    carla.open(1)
    assert carla.tab.locator("#suggestions .group").count() >= 2
    assert violations(carla) == []


@pytest.mark.parametrize("path", ["/films/99", "/enter/nobody.sig"])
def test_refusals(enter, path):
    anna = enter("anna")
    anna.tab.goto(anna.base + path)
    assert violations(anna) == []


def test_an_ended_session(enter):
    anna = enter("anna")
    anna.context.clear_cookies()
    anna.tab.goto(anna.base + "/")
    assert "private link" in anna.tab.inner_text("h1")
    assert violations(anna) == []


def test_axe_sees_what_is_wrong(enter):
    anna = enter("anna")
    anna.open(2)
    anna.tab.evaluate("document.querySelector('[data-view=reset]').textContent = ''")
    anna.tab.evaluate("document.querySelector('#finding-name').style.color = '#333'")
    assert {(one[0], one[1]) for one in violations(anna)} == {
        ("button-name", "critical"),
        ("color-contrast", "serious"),
    }


PAINTED = """async ([shape, dash]) => {
  const { paintShape } = await import("/static/review-shapes.js");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 60;
  paintShape(canvas.getContext("2d"), shape, { colour: "#fff", line: 1, dash });
  const { data } = canvas.getContext("2d").getImageData(0, 0, 60, 60);
  return [...data].filter((_, at) => at % 4 === 3);
}"""


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_what_is_suggested_differs_from_what_is_marked_without_colour(enter, kind):
    anna = enter("anna")
    anna.open(2)
    shape = shape_to_json(box(10, 10, 50, 50))
    if kind == "mask":
        pixels = np.zeros((60, 60), bool)
        pixels[10:50, 10:50] = True
        shape = shape_to_json(encode_mask(pixels))
    marked, suggested = (
        np.reshape(anna.tab.evaluate(PAINTED, [shape, dash]), (60, 60)) for dash in ([], [8, 5])
    )
    changes = [
        (np.diff((one[10, 5:55] > 128).astype(int)) != 0).sum() for one in (marked, suggested)
    ]
    assert changes[0] <= 2
    assert changes[1] >= 4  # dashes


def test_states_are_said_in_words(enter):
    anna = enter("anna")
    anna.open(1)
    anna.press("j")  # on from the first open finding to the first of all
    assert anna.tab.locator("#findings .state").all_text_contents() == ["present"] * 2 + ["open"]
    assert anna.tab.locator("#regions button").first.text_content() == "1 box, drawn"
    assert "says present" in anna.tab.locator("#suggestions").text_content()
    anna.tab.goto(anna.base)
    assert "begun" in anna.tab.locator("tbody tr").first.text_content()
