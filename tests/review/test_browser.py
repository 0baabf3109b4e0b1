"""The pages in a real browser: drawing, correcting, undoing, touch, a killed server."""

import json
from contextlib import closing

import numpy as np
import pytest
import yaml

from dwarf_cxr.data.geometry import rasterise
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.review.annotation import Assessment
from dwarf_cxr.review.folder import begin
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.web.links import Links, Visitor
from tests import tiny
from tests.review.desk import Desk, said_of
from tests.review.made import FINDINGS, HEIGHT, SECRET_NAME, WIDTH, box, write_data
from tests.review.told import Told, use
from tests.web.served import until

pytestmark = pytest.mark.browser


def iou(shapes, other):
    one, two = rasterise(shapes, (WIDTH, HEIGHT)), rasterise(other, (WIDTH, HEIGHT))
    return (one & two).sum() / (one | two).sum()


def polygon(*points):
    from dwarf_cxr.data.records import Polygon

    return Polygon(np.array(points, dtype=np.float64))


def test_a_polygon_drawn_corrected_undone_redone_and_trained_on(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=10)
    server = serve(data.folder, "--readers", "anna")
    desk = Desk(browser, server, "anna")
    desk.open(1)
    desk.press("g")
    corners = [(20, 20), (70, 30), (60, 90), (25, 80)]
    for corner in corners:
        desk.tap(*corner)
    desk.press("Enter")
    desk.saved()
    # the second corner is pulled away
    desk.press("v")
    desk.drag((70, 30), (80, 15))
    desk.saved()
    moved = [(20, 20), (80, 15), (60, 90), (25, 80)]
    words, _ = said_of(tmp_path / "review", 0, "Mass")
    assert words.verdict == "present"
    assert iou(words.shapes, [polygon(*moved)]) > 0.97
    desk.press("z")
    desk.tab.wait_for_selector("#redo:not([disabled])")
    words, _ = said_of(tmp_path / "review", 0, "Mass")
    assert iou(words.shapes, [polygon(*corners)]) > 0.97
    assert iou(words.shapes, [polygon(*moved)]) < 0.9
    desk.press("y")
    desk.press("j", "2", "j", "2")  # the other findings are absent
    desk.saved()
    words, changes = said_of(tmp_path / "review", 0, "Mass")
    assert [one.action for one in changes] == ["edit", "edit", "undo", "redo", "edit", "edit"]
    desk.tab.reload()
    desk.ready()
    assert desk.tab.locator("#findings .mark").all_text_contents() == ["●", "–", "–"]
    assert all(url.startswith(f"http://127.0.0.1:{server.port}/") for url in desk.asked)
    desk.close()

    from typer.testing import CliRunner

    from dwarf_cxr.cli import app

    new = tmp_path / "new"
    done = CliRunner().invoke(app, ["review", "write", str(tmp_path / "review"), "--out", str(new)])
    assert done.exit_code == 0, done.output
    assert "1 region," in done.output
    vit, bert = tiny.write_vit(tmp_path / "vit"), tiny.write_bert(tmp_path / "bert")
    settings = [
        f"model.image_encoder={vit}",
        f"model.text_encoder={bert}",
        "model.frozen_layers=1",
        "model.width=16",
        "model.layers=1",
        "model.attention_heads=2",
        "model.feedforward=24",
        "objective.map_size=8",
        "training.accelerator=cpu",
    ]
    command = ["train", "dwarf", "--data", str(new), "--out", str(tmp_path / "run")]
    command += ["--epochs", "1", *(part for one in settings for part in ("--set", one))]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    trained_on = PreparedData.open(new)
    assert config["data_fingerprint"] == trained_on.fingerprint != data.fingerprint
    (region,) = trained_on.regions(0, "Mass")
    assert (region.annotator, region.kind) == ("anna", "expert")
    assert iou([region.shape], [polygon(*moved)]) > 0.97


def test_everything_by_keyboard(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    desk = Desk(browser, serve(data.folder, "--readers", "anna"), "anna")
    desk.press("Enter")
    desk.ready()
    # film 1 has a box in the data: accepted by key, then a corner moved
    desk.press("a")
    desk.saved()
    desk.press("q", "t", "ArrowLeft", "ArrowLeft", "ArrowUp")
    desk.tab.wait_for_timeout(600)
    desk.saved()
    words, _ = said_of(tmp_path / "review", 0, "Mass")
    (region,) = words.regions
    assert region.origin == "corrected"
    assert region.shape.x1 < 20
    assert region.shape.y1 < 30
    assert (region.shape.x2, region.shape.y2) == (50, 60)
    # a box and a triangle drawn with the cross
    desk.press("j", "b", "ArrowLeft", "Space", *["ArrowRight"] * 5, *["ArrowDown"] * 5, "Space")
    desk.saved()
    desk.press("g", "Space", *["ArrowRight"] * 9, "Space", *["ArrowDown"] * 9, "Space", "Enter")
    desk.saved()
    words, _ = said_of(tmp_path / "review", 0, "Effusion")
    assert [type(one.shape).__name__ for one in words.regions] == ["Box", "Polygon"]
    desk.press("v", "q", "Delete")
    desk.saved()
    words, _ = said_of(tmp_path / "review", 0, "Effusion")
    assert [type(one.shape).__name__ for one in words.regions] == ["Polygon"]
    desk.press("r")
    desk.saved()
    desk.press("n")
    desk.tab.wait_for_url("**/films/2")
    desk.ready()
    desk.press("3", "p")
    desk.tab.wait_for_url("**/films/1")
    desk.ready()
    assert desk.tab.locator("#findings .mark").all_text_contents() == ["●", "●", "–"]
    words, _ = said_of(tmp_path / "review", 1, "Mass")
    assert words.verdict == "unsure"
    desk.close()


def test_brush_and_eraser(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    desk = Desk(browser, serve(data.folder, "--readers", "anna"), "anna")
    desk.open(2)
    desk.press("m")
    desk.drag((20, 40), (70, 40))
    desk.saved()
    words, _ = said_of(tmp_path / "review", 1, "Mass")
    (painted,) = words.shapes
    pixels = rasterise([painted], (WIDTH, HEIGHT))
    assert pixels[40, 22:68].all()
    assert not pixels[50:].any()
    assert not pixels[:30].any()
    desk.press("e")
    desk.drag((45, 20), (45, 60))
    desk.saved()
    words, changes = said_of(tmp_path / "review", 1, "Mass")
    after = rasterise(words.shapes, (WIDTH, HEIGHT))
    assert not after[:, 44:46].any()
    assert after[40, 22:38].all()
    assert not (after & ~pixels).any()
    assert len(changes) == 2
    desk.close()


def test_touch(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    server = serve(data.folder, "--readers", "anna")
    desk = Desk(
        browser,
        server,
        "anna",
        viewport={"width": 800, "height": 1280},
        has_touch=True,
        is_mobile=True,
    )
    desk.open(2)
    desk.tab.locator("[data-tool=polygon]").tap()
    corners = [(20, 30), (70, 30), (45, 90)]
    for corner in corners:
        desk.tab.touchscreen.tap(*desk.place(*corner))
    desk.tab.locator("#close-polygon").tap()
    desk.saved()
    words, _ = said_of(tmp_path / "review", 1, "Mass")
    assert iou(words.shapes, [polygon(*corners)]) > 0.95
    # an outline in one go, with a finger; two fingers zoom and draw nothing
    desk.tab.locator("[data-finding='1']").tap()
    client = desk.context.new_cdp_session(desk.tab)

    def touch(kind, *points):
        spots = [dict(zip(("x", "y"), desk.place(*one), strict=True)) for one in points]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots})

    circle = [(45 + 20 * np.cos(a), 60 + 25 * np.sin(a)) for a in np.linspace(0, 6.1, 30)]
    touch("touchStart", circle[0])
    for point in circle[1:]:
        touch("touchMove", point)
    touch("touchEnd")
    desk.saved()
    words, changes = said_of(tmp_path / "review", 1, "Effusion")
    assert iou(words.shapes, [polygon(*circle)]) > 0.9
    touch("touchStart", (30, 40))
    touch("touchStart", (30, 40), (60, 80))
    touch("touchMove", (20, 30), (70, 90))
    touch("touchEnd")
    desk.tab.wait_for_timeout(300)
    assert len(said_of(tmp_path / "review", 1, "Effusion")[1]) == len(changes)
    desk.close()


def test_a_killed_server_loses_and_doubles_nothing(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    server = serve(data.folder, "--readers", "anna")
    desk = Desk(browser, server, "anna")
    desk.open(1)
    desk.press("1")
    desk.saved()
    server.kill()
    desk.press("j", "b")
    desk.drag((10, 10), (40, 50))
    desk.press("j", "2")
    desk.tab.wait_for_selector("#saving[data-state=unsaved]")
    # the page is gone too: what it held is kept by the browser
    server.start()
    desk.tab.reload()
    desk.ready()
    assert desk.tab.locator("#findings .mark").all_text_contents() == ["●", "●", "–"]
    _, changes = said_of(tmp_path / "review", 0, "Mass")
    assert [(one.finding, one.verdict) for one in changes] == [
        ("Mass", "present"),
        ("Effusion", "present"),
        ("Nodule", "absent"),
    ]
    # killed after it saved and before it could answer: the change is sent again, and is there once
    dropped = []

    def drop(route):
        if dropped:
            route.continue_()
        else:
            dropped.append(route.fetch().status)
            route.abort()

    desk.tab.route("**/changes", drop)
    desk.press("k", "3")
    desk.saved()
    assert dropped == [200]
    _, changes = said_of(tmp_path / "review", 0, "Mass")
    assert len(changes) == 4
    desk.close()


def test_what_another_film_could_not_save_is_saved_later(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    server = serve(data.folder, "--readers", "anna")
    desk = Desk(browser, server, "anna")
    desk.open(1)
    desk.tab.route("**/films/1/changes", lambda route: route.abort())
    desk.press("3")
    desk.tab.wait_for_selector("#saving[data-state=unsaved]")
    desk.press("n")
    desk.tab.wait_for_url("**/films/2")
    desk.ready()
    desk.tab.unroute("**/films/1/changes")
    desk.tab.goto(f"http://127.0.0.1:{server.port}/")
    desk.tab.wait_for_selector("#unsaved", state="hidden")
    words, changes = said_of(tmp_path / "review", 0, "Mass")
    assert words.verdict == "unsure"
    assert len(changes) == 1
    desk.close()


@pytest.fixture
def held_undo(browser, serve, tmp_path):
    """A page on film 2 with two boxes, whose undos and redos are held up until it goes on."""
    data = write_data(tmp_path / "data", films=4)
    desk = Desk(browser, serve(data.folder, "--readers", "anna"), "anna")
    desk.open(2)
    desk.press("b")
    for corner in (10, 50):
        desk.drag((corner, 10), (corner + 30, 50))
        desk.saved()
    desk.press("v")

    held = []

    def hold(route):
        if json.loads(route.request.post_data)["kind"] == "edit" or None in held:
            route.continue_()
        else:
            held.append(route)

    def go_on():
        for _ in range(100):  # the page may not have asked yet
            if held:
                break
            desk.tab.wait_for_timeout(100)
        assert held
        for route in held:
            route.continue_()
        held.append(None)

    desk.tab.route("**/changes", hold)
    desk.go_on = go_on
    yield desk
    desk.close()


def test_keys_pressed_while_an_undo_is_under_way_are_done_after_it(held_undo, tmp_path):
    # undo the second box, undo the first, bring it back, delete it, and judge the next finding
    held_undo.press("z", "z", "y", "q", "Delete", "j", "1", "b", "Space")
    assert "to be done after it" in held_undo.tab.locator("#saving").text_content()
    held_undo.press(*["ArrowRight"] * 6, *["ArrowDown"] * 6, "Space")
    held_undo.go_on()
    held_undo.saved()
    words, changes = said_of(tmp_path / "review", 1, "Mass")
    assert words.regions == ()
    said = [(one.action, one.finding) for one in changes]
    assert said[:2] == [("edit", "Mass")] * 2
    assert said[2:] == [
        ("undo", "Mass"),
        ("undo", "Mass"),
        ("redo", "Mass"),
        ("edit", "Mass"),
        ("edit", "Effusion"),
        ("edit", "Effusion"),
    ]
    words, _ = said_of(tmp_path / "review", 1, "Effusion")
    assert [type(one.shape).__name__ for one in words.regions] == ["Box"]


def test_a_click_while_an_undo_is_under_way_does_not_bring_back_what_is_undone(held_undo, tmp_path):
    held_undo.press("z")
    held_undo.tab.locator("input[value=unsure]").click()
    held_undo.tab.fill("#comment", "small")
    held_undo.tab.locator("#comment").blur()
    held_undo.go_on()
    held_undo.saved()
    words, changes = said_of(tmp_path / "review", 1, "Mass")
    assert [one.action for one in changes] == ["edit", "edit", "undo", "edit", "edit"]
    assert words.verdict == "unsure"
    assert words.comment == "small"
    assert len(words.regions) == 1


def test_an_undo_in_the_middle_of_a_drag_ends_the_drag(held_undo, tmp_path):
    held_undo.press("q", "q")
    held_undo.tab.mouse.move(*held_undo.place(80, 50))
    held_undo.tab.mouse.down()
    held_undo.tab.mouse.move(*held_undo.place(70, 60), steps=3)
    held_undo.press("z")
    held_undo.go_on()
    held_undo.saved()
    held_undo.tab.mouse.move(*held_undo.place(60, 70), steps=3)
    held_undo.tab.mouse.up()
    held_undo.saved()
    words, changes = said_of(tmp_path / "review", 1, "Mass")
    assert [one.action for one in changes] == ["edit", "edit", "undo"]
    assert len(words.regions) == 1


def test_what_waits_for_an_undo_that_is_refused_is_dropped_and_said(held_undo, tmp_path):
    with closing(Ledger(tmp_path / "review" / "review.db")) as ledger:
        state = ledger.state(1, "anna")
        said = {"Nodule": Assessment("absent")}
        ledger.edit(1, "anna", said, version=state.version, key="other tab")
    held_undo.press("z", "1", "3")
    held_undo.go_on()
    held_undo.tab.wait_for_selector("#message.error:not([hidden])")
    told = held_undo.tab.locator("#message").text_content()
    assert "another tab" in told
    assert "What you did after it was dropped." in told
    held_undo.saved()
    words, changes = said_of(tmp_path / "review", 1, "Mass")
    assert len(words.regions) == 2
    assert len(changes) == 3


def test_what_a_model_suggests_is_shown_accepted_corrected_and_hidden(
    browser, serve, tmp_path, monkeypatch
):
    data = write_data(tmp_path / "data", films=4)
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"weights")
    use(monkeypatch, Told(FINDINGS, 32))
    begin(tmp_path / "review", data.folder, run=run, readers=["anna"], order="data")
    desk = Desk(browser, serve(data.folder, "--readers", "anna"), "anna")
    desk.open(2)
    shown = desk.tab.locator("#suggestions .group", has_text="Model")
    assert "has 1 region" in shown.text_content()
    assert f"{desk.base}/films/2/maps/0.png" in desk.asked
    assert shown.locator(".swatch.run").count() == 1
    desk.press("a")
    desk.saved()
    assert "has 1 region, answered" in shown.text_content()
    words, changes = said_of(tmp_path / "review", 1, "Mass")
    (region,) = words.regions
    assert region.origin == "accepted"
    assert region.suggested.by.startswith("run-")
    assert iou([region.shape], [box(WIDTH / 3, HEIGHT / 6, WIDTH * 2 / 3, HEIGHT / 2)]) > 0.7
    assert changes[-1].suggestions_shown
    desk.press("q", "t", "ArrowLeft", "ArrowLeft")
    desk.tab.wait_for_timeout(600)
    desk.saved()
    words, _ = said_of(tmp_path / "review", 1, "Mass")
    assert [one.origin for one in words.regions] == ["corrected"]
    desk.press("h", "3")
    desk.saved()
    assert desk.tab.locator("#suggestions").text_content() == "Suggestions are hidden."
    _, changes = said_of(tmp_path / "review", 1, "Mass")
    assert not changes[-1].suggestions_shown
    desk.close()


def test_two_tabs_do_not_overwrite_each_other(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    desk = Desk(browser, serve(data.folder, "--readers", "anna"), "anna")
    desk.open(1)
    other = desk.context.new_page()
    other.goto(desk.tab.url)
    other.wait_for_selector("#saving[data-state=saved]")
    desk.press("1")
    desk.saved()
    other.keyboard.press("2")
    other.wait_for_selector("#message.error:not([hidden])")
    assert "another tab" in other.locator("#message").text_content()
    assert other.locator("input[value=present]").is_checked()
    _, changes = said_of(tmp_path / "review", 0, "Mass")
    assert [one.verdict for one in changes] == ["present"]
    desk.close()


def test_another_review_at_the_same_address_gets_nothing_of_this_one(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    server = serve(data.folder, "--readers", "anna")
    desk = Desk(browser, server, "anna")
    desk.open(1)
    server.kill()
    desk.press("3")
    desk.tab.wait_for_selector("#saving[data-state=unsaved]")
    kept = desk.tab.evaluate("JSON.stringify(localStorage)")
    assert "unsure" in kept
    # the first review moves away, another one of the same reader is served in its place
    (tmp_path / "review").rename(tmp_path / "first")
    server.start()
    desk.tab.goto(server.base + Links.of(server.folder).path(Visitor("reader", "anna")))
    desk.open(1)
    desk.tab.wait_for_timeout(500)
    words, changes = said_of(tmp_path / "review", 0, "Mass")
    assert words is None
    assert changes == []
    assert "unsure" in desk.tab.evaluate("JSON.stringify(localStorage)")
    # back again, nothing is lost
    server.kill()
    (tmp_path / "review").rename(tmp_path / "second")
    (tmp_path / "first").rename(tmp_path / "review")
    server.start()
    desk.tab.goto(server.base + Links.of(server.folder).path(Visitor("reader", "anna")))
    until(desk.tab, "!Object.keys(localStorage).some((name) => name.startsWith('dwarf-review/'))")
    words, changes = said_of(tmp_path / "review", 0, "Mass")
    assert words.verdict == "unsure"
    assert len(changes) == 1
    desk.close()


def test_two_tabs_without_a_server_keep_what_both_hold(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    server = serve(data.folder, "--readers", "anna")
    desk = Desk(browser, server, "anna")
    desk.open(1)
    other = desk.context.new_page()
    other.goto(desk.tab.url)
    other.wait_for_selector("#saving[data-state=saved]")
    server.kill()
    desk.press("1")
    other.keyboard.press("j")
    other.keyboard.press("2")
    for tab in (desk.tab, other):
        tab.wait_for_selector("#saving[data-state=unsaved]")
    other.close()
    desk.tab.close()
    server.start()
    desk.tab = desk.context.new_page()
    desk.tab.goto(server.base)
    # one is saved; the other goes back to the same state and is refused, and that is said
    desk.tab.wait_for_selector("#unsaved:not([hidden])")
    until(desk.tab, "document.querySelector('#unsaved').textContent.includes('another tab')")
    _, changes = said_of(tmp_path / "review", 0, "Mass")
    assert len(changes) == 1
    desk.close()


def test_comments_are_text_and_pages_name_no_patient(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    server = serve(data.folder, "--readers", "anna,ben", "--adjudicator", "carla")
    evil = "<img src=x onerror=\"document.title='owned'\">"
    desk = Desk(browser, server, "anna")
    desk.open(1)
    desk.press("1")
    desk.tab.fill("#comment", evil)
    desk.tab.locator("#comment").blur()
    desk.saved()
    desk.close()
    ben = Desk(browser, server, "ben")
    ben.open(1)
    ben.press("2")
    ben.saved()
    ben.close()
    carla = Desk(browser, server, "carla")
    carla.press("Enter")
    carla.ready()
    assert evil in carla.tab.locator("#suggestions").text_content()
    assert carla.tab.locator("#suggestions img").count() == 0
    assert carla.tab.title() == "Film 1"
    assert SECRET_NAME not in carla.tab.content()
    assert "anna" not in carla.tab.content()
    carla.close()


@pytest.mark.parametrize("viewport", [(1280, 800), (1024, 768), (800, 1280)])
def test_nothing_is_clipped_and_targets_are_large(browser, serve, tmp_path, viewport):
    data = write_data(tmp_path / "data", films=4)
    size = dict(zip(("width", "height"), viewport, strict=True))
    desk = Desk(browser, serve(data.folder, "--readers", "anna"), "anna", viewport=size)
    for number in (None, 1):
        if number is not None:
            desk.open(number)
        assert desk.tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        clipped = desk.tab.evaluate(
            "[...document.querySelectorAll('button, h1, h2, h3, .choice')]"
            ".filter(e => e.offsetParent).filter(e => (e.scrollWidth > e.clientWidth + 1 || "
            "e.getBoundingClientRect().right > innerWidth)).map(e => e.textContent)"
        )
        assert clipped == []
        small = desk.tab.evaluate(
            "[...document.querySelectorAll('button, a.button, .choice')]"
            ".filter(e => e.offsetParent).map(e => e.getBoundingClientRect())"
            ".filter(b => b.width < 40 || b.height < 40).length"
        )
        assert small == 0
        unnamed = desk.tab.evaluate(
            "[...document.querySelectorAll('button, input, textarea')].filter(e => "
            "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
        )
        assert unnamed == 0
    desk.close()
