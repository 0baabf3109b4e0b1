"""What a reader at a film can rely on: it stays where it is, and nothing is said for them."""

from contextlib import closing

import pytest

from dwarf_cxr.review.ledger import Ledger
from tests.review.desk import Desk, said_of
from tests.review.made import ABSENT, box, present, write_data
from tests.web.served import until

pytestmark = pytest.mark.browser

SIZES = [(1280, 800), (1024, 768), (800, 1280)]


@pytest.fixture
def anna(browser, serve, tmp_path):
    """Anna at film 2, which nobody marked."""
    data = write_data(tmp_path / "data", films=4)
    desk = Desk(browser, serve(data.folder, "--readers", "anna"), "anna")
    desk.folder = tmp_path / "review"
    desk.open(2)
    yield desk
    desk.close()


def message(desk):
    line = desk.tab.locator("#message")
    return line.text_content() if line.is_visible() else ""


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nothing_moves_the_film(anna, size):
    anna.tab.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    film = anna.tab.locator("#film")
    place = film.bounding_box()
    anna.press("g")
    for corner in [(20, 30), (70, 30), (45, 90)]:
        anna.tap(*corner)
        assert film.bounding_box() == place
    assert anna.tab.locator("#close-polygon").is_visible()
    anna.press("Enter", "m")
    assert anna.tab.locator("#brush-size").is_visible()
    assert film.bounding_box() == place
    anna.saved()
    # the server is gone; what cannot be saved waits, and an undo and more wait for it
    anna.tab.route("**/changes", lambda route: route.abort())
    anna.press("3")
    anna.tab.wait_for_selector("#saving[data-state=unsaved]")
    assert film.bounding_box() == place
    # the longest that is said there
    anna.tab.unroute("**/changes")
    anna.tab.route("**/changes", lambda route: route.fulfill(status=401))
    until(anna.tab, "document.querySelector('#saving').textContent.includes('private link')")
    assert film.bounding_box() == place
    saving = "document.querySelector('#saving')"
    assert anna.tab.evaluate(f"{saving}.scrollHeight <= {saving}.clientHeight + 1")
    assert anna.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def verdict(desk):
    return said_of(desk.folder, 1, "Mass")[0].verdict


def test_the_verdict_before_the_first_region_comes_back_with_the_last_deleted(anna):
    for before, key in [(None, ""), ("absent", "2"), ("unsure", "3")]:
        if key:
            anna.press(key)
        anna.press("b")
        anna.drag((10, 10), (30, 30))
        anna.drag((50, 50), (70, 80))
        anna.saved()
        assert verdict(anna) == ("unsure" if before == "unsure" else "present")
        anna.press("Delete")
        anna.saved()
        assert verdict(anna) == ("unsure" if before == "unsure" else "present")
        anna.press("q", "Delete")
        anna.saved()
        assert verdict(anna) == before
    anna.press("z")
    until(anna.tab, "document.querySelector('#saving').dataset.state === 'saved'")
    assert len(said_of(anna.folder, 1, "Mass")[0].regions) == 1


def test_a_verdict_that_was_said_stays_without_a_region(anna):
    anna.press("b")
    anna.drag((10, 10), (30, 30))
    anna.press("1", "Delete")
    anna.saved()
    assert verdict(anna) == "present"
    assert "still present" in message(anna)


def test_after_a_reload_a_verdict_without_its_region_is_at_least_said(anna):
    anna.press("b")
    anna.drag((10, 10), (30, 30))
    anna.saved()
    anna.open(2)
    anna.press("k", "j")
    anna.tab.locator("[data-finding='0']").click()
    anna.press("q", "Delete")
    anna.saved()
    assert verdict(anna) == "present"
    assert "still present" in message(anna)


def test_the_brush_begins_a_region_beside_a_box(anna):
    anna.press("b")
    anna.drag((10, 10), (30, 30))
    anna.press("m")
    anna.drag((20, 90), (60, 90))
    anna.drag((40, 90), (40, 110))  # on with the same
    anna.press("Escape")
    anna.drag((60, 50), (80, 50))  # another
    anna.saved()
    words, _ = said_of(anna.folder, 1, "Mass")
    assert [type(one).__name__ for one in words.shapes] == ["Box", "Mask", "Mask"]
    drawn = words.shapes[0]
    assert [drawn.x1, drawn.y1, drawn.x2, drawn.y2] == pytest.approx([10, 10, 30, 30], abs=1)


def test_as_many_undos_as_are_pressed_at_once_are_done(anna):
    anna.press("b")
    for corner in range(10, 50, 10):
        anna.drag((corner, corner), (corner + 30, corner + 40))
    anna.tab.keyboard.type("zzzz")
    anna.saved()
    words, changes = said_of(anna.folder, 1, "Mass")
    assert [one.action for one in changes] == ["edit"] * 4 + ["undo"] * 4
    assert words is None or (words.verdict is None and words.regions == ())


def test_what_was_said_goes_with_its_undo_and_with_its_finding(anna):
    anna.press("b")
    for leave in ("z", "j"):
        anna.drag((10, 10), (30, 30))
        anna.press("2")
        assert "removed" in message(anna)
        anna.saved()
        anna.press(leave)
        assert message(anna) == ""
        anna.saved()


@pytest.fixture
def differing(browser, serve, tmp_path):
    """Where readers agree on Mass and Nodule and differ on Effusion; not a page yet."""
    data = write_data(tmp_path / "data", films=4)
    server = serve(data.folder, "--readers", "anna,ben", "--adjudicator", "carla")
    with closing(Ledger(tmp_path / "review" / "review.db")) as ledger:
        mass, effusion = present(box(4, 5, 40, 60)), present(box(50, 50, 80, 90))
        said = {"Mass": mass, "Effusion": effusion, "Nodule": ABSENT}
        ledger.edit(0, "anna", said, version=0, key="k")
        ledger.edit(0, "ben", {**said, "Effusion": ABSENT}, version=0, key="k")
    desks = []

    def enter(reader):
        desks.append(Desk(browser, server, reader))
        desks[-1].open(1)
        return desks[-1]

    yield enter
    for desk in desks:
        desk.close()


def test_the_adjudicator_sees_what_is_disputed_and_cannot_sweep_it(differing, tmp_path):
    carla = differing("carla")
    rows = carla.tab.locator("#findings button")
    assert ["Readers differ" in row for row in rows.all_text_contents()] == [False, True, False]
    assert carla.tab.locator("#finding-name").text_content() == "Effusion"
    assert carla.tab.locator("#rest-absent").count() == 0
    carla.press("r")
    assert "finding by finding" in message(carla)
    carla.press("2")
    carla.saved()
    _, changes = said_of(tmp_path / "review", 0, "Mass", "carla")
    assert [(one.reader, one.finding) for one in changes[6:]] == [("carla", "Effusion")]
    anna = differing("anna")
    assert "Readers differ" not in anna.tab.content()
    assert anna.tab.locator("#rest-absent").is_visible()


@pytest.mark.parametrize("arrow", ["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"])
def test_arrows_after_a_click_on_a_verdict_move_the_film(anna, arrow):
    anna.press("b")
    anna.drag((20, 30), (60, 80))
    anna.press("v")
    anna.tab.locator("input[value=present]").click()
    anna.press("+", "+", arrow, arrow)
    anna.saved()
    words, changes = said_of(anna.folder, 1, "Mass")
    assert words.verdict == "present"
    assert len(words.regions) == 1
    assert {one.verdict for one in changes} == {"present"}
    moved = anna.tab.evaluate(
        "import('/static/review-film.js').then(({ view }) => [view.x, view.y])"
    )
    assert moved != [0.5, 0.5]


def test_without_a_server_the_page_stays_and_says_so(browser, serve, tmp_path):
    data = write_data(tmp_path / "data", films=4)
    server = serve(data.folder, "--readers", "anna")
    desk = Desk(browser, server, "anna")
    desk.open(1)
    server.kill()
    for key in ("n", "3"):
        desk.press(key)
        desk.tab.wait_for_selector("#message.error:not([hidden])")
        assert "No connection" in message(desk)
    assert desk.tab.url.endswith("/films/1")
    assert desk.tab.locator("input[value=unsure]").is_checked()
    server.start()
    desk.press("n")
    desk.tab.wait_for_url("**/films/2")
    desk.ready()
    words, _ = said_of(tmp_path / "review", 0, "Mass")
    assert words.verdict == "unsure"
    desk.close()


FOURTEEN = tuple(f"Pleural thickening {number}" for number in range(1, 15))


@pytest.mark.parametrize("size", [(1280, 800), (1280, 720), (1024, 768)], ids=str)
def test_with_fourteen_findings_all_that_is_done_is_in_view(
    browser, serve, tmp_path, monkeypatch, size
):
    monkeypatch.setattr("tests.review.made.FINDINGS", FOURTEEN)
    data = write_data(tmp_path / "data", films=4)
    viewport = dict(zip(("width", "height"), size, strict=True))
    desk = Desk(browser, serve(data.folder, "--readers", "anna"), "anna", viewport=viewport)
    desk.open(2)
    button = desk.tab.locator("#rest-absent").bounding_box()
    assert button["y"] + button["height"] <= size[1]
    at = (button["x"] + button["width"] / 2, button["y"] + button["height"] - 3)
    on_top = f"document.elementFromPoint({at[0]}, {at[1]}).closest('button')?.id"
    assert desk.tab.evaluate(on_top) == "rest-absent"
    desk.press("k")  # from the first to the last
    last = desk.tab.locator("[data-finding='13']").bounding_box()
    assert last["y"] + last["height"] <= button["y"]
    desk.close()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_verdicts_and_answers_have_room_and_keep_their_keys(anna, size):
    anna.tab.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    anna.tab.goto(f"{anna.base}/films/3")
    anna.ready()
    anna.press("2")
    anna.saved()
    assert all(one.is_visible() for one in anna.tab.locator("#verdict kbd").all())
    room = """[...document.querySelectorAll('.choice')].map((choice) => {
      const words = document.createRange();
      words.selectNodeContents(choice.childNodes[1]);
      const [inner, outer] = [words.getBoundingClientRect(), choice.getBoundingClientRect()];
      return Math.min(inner.left - outer.left, outer.right - inner.right);
    })"""
    assert min(anna.tab.evaluate(room)) >= 4
    tops = {one.bounding_box()["y"] for one in anna.tab.locator(".group .tools button").all()[:2]}
    assert len(tops) == 1


def test_score_and_threshold_have_the_digits_that_tell_them_apart(anna):
    def close(route):
        told = route.fetch().json()
        group = {"by": "run-1", "kind": "run", "title": "Model", "verdict": "absent"}
        marks = [{"kind": "box", "x1": 5, "y1": 5, "x2": 20, "y2": 20}]
        score = {"score": 0.57312, "threshold": 0.57318, "regions": marks}
        told["suggestions"][0] = [{**group, **score}]
        route.fulfill(json=told)

    anna.tab.route("**/state", close)
    anna.open(2)
    said = anna.tab.locator("#suggestions").text_content()
    assert "score 0.5731, threshold 0.5732" in said
    assert "says absent, yet has 1 region" in said


def test_readers_differ_in_colour_and_dashes_and_names_do_not_lie_over_each_other(
    browser, serve, tmp_path
):
    data = write_data(tmp_path / "data", films=4)
    server = serve(data.folder, "--readers", "anna,ben", "--adjudicator", "carla")
    with closing(Ledger(tmp_path / "review" / "review.db")) as ledger:
        marks = box(10, 40, 40, 60), box(11, 41, 41, 61), box(12, 42, 44, 64)
        ledger.edit(1, "anna", {"Mass": present(*marks[:2])}, version=0, key="k")
        ledger.edit(1, "ben", {"Mass": present(marks[2])}, version=0, key="k")
    desk = Desk(browser, server, "carla")
    desk.open(2)
    lines = desk.tab.locator("#suggestions .swatch.reader line")
    strokes = [
        [one.get_attribute(name) for one in lines.all()] for name in ("stroke", "stroke-dasharray")
    ]
    assert all(len(set(its)) == len(its) == 2 for its in strokes)
    film = "document.querySelector('#film').dataset.named"
    until(desk.tab, f"{film}?.includes('Reader 1, region 1')")
    assert "Reader 2, region 1" not in desk.tab.evaluate(film)
    desk.tab.mouse.move(*desk.place(16, 63))  # on ben's alone
    until(desk.tab, f"{film}.includes('Reader 2, region 1')")
    desk.tab.mouse.move(*desk.place(80, 110))
    until(desk.tab, f"!{film}.includes('Reader 2, region 1')")
    desk.press("q", "q", "q")
    until(desk.tab, f"{film}.startsWith('Reader 2, region 1')")
    desk.close()


def test_a_suggestion_is_chosen_and_then_its_corner_is_dragged(anna):
    anna.open(1)  # with a box in the data
    anna.drag((50, 60), (60, 70))  # not chosen: the film is moved, and only where it is zoomed
    anna.saved()
    assert said_of(anna.folder, 0, "Mass")[1] == []
    anna.tap(35, 45)
    anna.drag((50, 60), (60, 75))
    anna.saved()
    (region,) = said_of(anna.folder, 0, "Mass")[0].regions
    assert region.origin == "corrected"
    assert (region.shape.x2, region.shape.y2) == pytest.approx((60, 75), abs=1.5)


def test_a_finding_further_down_does_not_scroll_the_film_away(
    browser, serve, tmp_path, monkeypatch
):
    monkeypatch.setattr("tests.review.made.FINDINGS", FOURTEEN)
    data = write_data(tmp_path / "data", films=4)
    viewport = {"width": 800, "height": 1280}
    desk = Desk(browser, serve(data.folder, "--readers", "anna"), "anna", viewport=viewport)
    desk.open(2)
    place = desk.tab.locator("#film").bounding_box()
    desk.press("k", "g")
    desk.tap(20, 30)
    desk.tap(70, 30)
    assert desk.tab.locator("#finding-name").text_content() == FOURTEEN[-1]
    assert desk.tab.locator("#film").bounding_box() == place
    desk.close()
