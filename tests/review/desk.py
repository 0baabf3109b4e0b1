"""A reader at a page of the review, in a real browser."""

from contextlib import closing

from dwarf_cxr.review.folder import open_review
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.web.links import OWNER, Links, Visitor
from tests.review.made import HEIGHT, WIDTH


class Desk:
    """A reader at a page."""

    def __init__(self, browser, server, reader, **options):
        context = {"viewport": {"width": 1280, "height": 800}, **options}
        self.context = browser.new_context(**context)
        self.tab = self.context.new_page()
        self.said, self.asked = [], []
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        visitor = OWNER if reader == "owner" else Visitor("reader", reader)
        self.base = server.base
        self.tab.goto(server.base + Links.of(server.folder).path(visitor))

    def open(self, number):
        self.tab.goto(f"{self.base}/films/{number}")
        self.ready()

    def ready(self):
        self.tab.wait_for_selector("main[data-ready=yes]")
        self.saved()

    def saved(self):
        self.tab.wait_for_selector("#saving[data-state=saved]")

    def place(self, x, y):
        """Where a pixel of the film is on the page."""
        box = self.tab.locator("#film").bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
        return (
            box["x"] + box["width"] / 2 + (x - WIDTH / 2) * scale,
            box["y"] + box["height"] / 2 + (y - HEIGHT / 2) * scale,
        )

    def tap(self, x, y):
        self.tab.mouse.click(*self.place(x, y))

    def drag(self, *points):
        self.tab.mouse.move(*self.place(*points[0]))
        self.tab.mouse.down()
        for point in points[1:]:
            self.tab.mouse.move(*self.place(*point), steps=4)
        self.tab.mouse.up()

    def press(self, *keys):
        for key in keys:
            self.tab.keyboard.press(key)

    def close(self):
        self.context.close()
        assert self.said == []


def said_of(review_folder, film, finding, reader="anna"):
    """What a reader says of a finding, and every change of the review."""
    review = open_review(review_folder)
    with closing(Ledger(review.database)) as ledger:
        return ledger.state(film, reader).assessments.get(finding), list(ledger.changes())
