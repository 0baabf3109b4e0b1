"""What a reader at a film can rely on: it stays where it is, and nothing is said for them."""

import pytest

from tests.review.desk import Desk, said_of, until
from tests.review.made import write_data

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
    until(anna, "document.querySelector('#saving').textContent.includes('private link')")
    assert film.bounding_box() == place
    saving = "document.querySelector('#saving')"
    assert anna.tab.evaluate(f"{saving}.scrollHeight <= {saving}.clientHeight + 1")
    assert anna.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
