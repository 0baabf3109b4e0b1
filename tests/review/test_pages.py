"""The pages' routes, without a browser."""

import json
import re
import threading
from contextlib import closing

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from dwarf_cxr.review.folder import begin
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.review.pages import BODY, application
from dwarf_cxr.web.links import OWNER, Links, Visitor
from tests.review.made import HEIGHT, SECRET_NAME, WIDTH, write_data

ANNA, BEN, CARLA = (Visitor("reader", name) for name in ("anna", "ben", "carla"))
BOX = {"kind": "box", "x1": 5.5, "y1": 6, "x2": 30, "y2": 40.25}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("pages") / "data")


@pytest.fixture
def review(data, tmp_path):
    return begin(tmp_path / "review", data.folder, readers=["anna", "ben"], adjudicator="carla")


@pytest.fixture
def ledger(review):
    with closing(Ledger(review.database)) as ledger:
        yield ledger


@pytest.fixture
def enter(review, ledger):
    links = Links.of(review.folder)
    guard = application(review, ledger, links)

    def client_of(visitor):
        client = TestClient(guard, "http://localhost", raise_server_exceptions=False)
        client.get(links.path(visitor))
        client.headers["X-CSRF-Token"] = links.form_token(visitor)
        return client

    return client_of


def drawn(shape, verdict="present", comment=""):
    region = {"shape": shape, "origin": "drawn", "suggested": None}
    return {"verdict": verdict, "regions": [region], "comment": comment}


def save(client, number, key, version=0, kind="edit", **findings):
    words = {name.lstrip("f"): said for name, said in findings.items()}
    content = {"kind": kind, "version": version, "key": key, "findings": words, "shown": True}
    return client.post(f"/films/{number}/changes", json=content)


def test_every_page_answers_and_names_no_patient(enter):
    anna, owner = enter(ANNA), enter(OWNER)
    save(anna, 1, "k", f0=drawn(BOX))
    pages = ["/", "/?page=9", "/films/1", "/films/6", "/films/1/state", "/films/1/film.png"]
    answers = [anna.get(page) for page in pages] + [owner.get("/")]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    for answer in answers:
        told = answer.content.lower() + str(answer.headers).lower().encode()
        for word in (SECRET_NAME, "patient-", "data-films", "report of"):
            assert word.encode() not in told


def test_the_film_is_shown_in_its_own_size_and_without_metadata(enter, review, data):
    content = enter(ANNA).get("/films/2/film.png").content
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    original = cv2.imread(data.sources[1], cv2.IMREAD_UNCHANGED)
    assert np.array_equal(shown, original)
    kinds = [content[m.start() + 4 : m.start() + 8] for m in re.finditer(rb"\0\0..", content)]
    assert not {b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME"} & set(kinds)


def test_a_film_that_is_gone_or_another_is_shown_from_prepared_pixels(tmp_path):
    data = write_data(tmp_path / "data", films=4)
    review = begin(tmp_path / "review", data.folder)
    from pathlib import Path

    from dwarf_cxr.review.pictures import film_png

    Path(data.sources[0]).unlink()
    cv2.imwrite(data.sources[1], np.zeros((HEIGHT, WIDTH), np.uint8))
    for film in (0, 1):
        shown = cv2.imdecode(np.frombuffer(film_png(review, film), np.uint8), cv2.IMREAD_UNCHANGED)
        assert shown.shape == (HEIGHT, WIDTH)
        assert shown[40, 35] > 150  # the bright square


def test_changes_are_saved_undone_and_redone(enter, ledger):
    anna = enter(ANNA)
    first = save(anna, 3, "a", f1=drawn(BOX, comment="seen")).json()
    assert first["findings"][1]["regions"][0]["shape"] == BOX
    assert (first["can_undo"], first["can_redo"]) == (True, False)
    undone = save(anna, 3, "b", first["version"], "undo").json()
    assert undone["findings"][1] == {"verdict": None, "regions": [], "comment": ""}
    redone = save(anna, 3, "c", undone["version"], "redo").json()
    assert redone["findings"] == first["findings"]
    assert anna.get("/films/3/state").json()["version"] == redone["version"]
    rows = list(ledger.changes())
    assert [(row.reader, row.film, row.finding) for row in rows] == [("anna", 2, "Effusion")] * 3
    assert rows[0].suggestions_shown


def test_a_double_submit_is_one_row(enter, ledger):
    anna = enter(ANNA)
    answers = [save(anna, 1, "same", f0=drawn(BOX)).json() for _ in range(3)]
    assert answers[0] == {**answers[1], "notes": answers[0]["notes"]} == answers[2]
    assert len(list(ledger.changes())) == 1


def test_a_stale_tab_is_told_and_overwrites_nothing(enter, ledger):
    anna = enter(ANNA)
    save(anna, 1, "new", f0=drawn(BOX))
    stale = save(anna, 1, "old", 0, f0={"verdict": "absent", "regions": [], "comment": ""})
    assert stale.status_code == 409
    assert "another tab" in stale.json()["words"]
    assert stale.json()["state"]["findings"][0]["verdict"] == "present"
    assert len(list(ledger.changes())) == 1


def test_what_was_changed_to_keep_a_shape_is_said(enter):
    outside = {"kind": "box", "x1": -9, "y1": 6, "x2": 30, "y2": 40}
    answer = save(enter(ANNA), 1, "a", f0=drawn(outside)).json()
    assert answer["findings"][0]["regions"][0]["shape"]["x1"] == 0
    assert answer["notes"] == ["Mass, region 1: the part outside the film was cut off"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b'{"kind": "edit"}', 422),
        (b'{"kind": "drop", "version": 0, "key": "k"}', 422),
        (b'{"kind": "edit", "version": 0, "key": "k", "findings": {"9": {}}}', 422),
        (b'{"kind": "edit", "version": true, "key": "k", "findings": {"0": {}}}', 422),
        (b'{"kind": "edit", "version": 0, "key": "k", "findings": {"0": {"verdict": 1}}}', 422),
    ],
)
def test_nonsense_is_refused_and_saved_nowhere(enter, ledger, content, status):
    answer = enter(ANNA).post(
        "/films/1/changes", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    assert list(ledger.changes()) == []


FAR = {**BOX, "x1": 10**400}
HALF = "\ud83d"


@pytest.mark.parametrize(
    "change",
    [
        {"findings": {"0": {**drawn(BOX), "comment": HALF}}},
        {"key": HALF},
        {"findings": {"1" * 5000: drawn(BOX)}},
        {"findings": {"\u0661": drawn(BOX)}},  # an Arabic one
        {"findings": {"00": drawn(BOX)}},
        {"findings": {HALF: drawn(BOX)}},
        {"findings": {"0": drawn(FAR)}},
        {"findings": {"0": drawn({**BOX, "x1": 1e308})}},
        {"findings": {"0": drawn({"kind": "polygon", "points": [[1, 1], [1e308, 9], [9, 1e308]]})}},
        {"findings": {"0": drawn({"kind": "mask", "width": 10**40, "height": 9, "counts": HALF})}},
        {"findings": {"0": drawn({"kind": HALF})}},
        {"findings": {"0": {**drawn(BOX), "verdict": HALF}}},
        {"kind": HALF},
    ],
)
def test_what_cannot_be_kept_is_refused_and_the_page_stays(enter, ledger, change):
    anna = enter(ANNA)
    content = {"kind": "edit", "version": 0, "key": "k", "findings": {"1": drawn(BOX)}}
    text = json.dumps({**content, **change})
    headers = {"Content-Type": "application/json"}
    answer = anna.post("/films/1/changes", content=text, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["words"]
    assert list(ledger.changes()) == []
    assert anna.get("/films/1/state").status_code == 200


def test_half_a_character_that_was_kept_before_breaks_no_page(enter, ledger):
    from dwarf_cxr.review.annotation import Assessment

    whole = "\U0001f600"
    words = {"Mass": Assessment("absent", (), HALF), "Nodule": Assessment("absent", (), whole)}
    ledger.edit(0, "anna", words, version=0, key="k")
    told = enter(ANNA).get("/films/1/state").json()["findings"]
    assert [one["comment"] for one in told] == ["?", "", whole]


def suggested(by, number, origin="accepted"):
    region = {"shape": BOX, "origin": origin, "suggested": {"by": by, "number": number}}
    return {"verdict": "present", "regions": [region], "comment": ""}


def test_only_what_was_suggested_can_be_accepted(enter, ledger):
    anna, carla = enter(ANNA), enter(CARLA)
    for number, (by, place) in enumerate(
        [("nobody", 10**40), ("data", 1), ("run-0123", 0), ("reader-1", 0), ("file", 0)]
    ):
        answer = save(anna, 1, f"k{number}", f0=suggested(by, place))
        assert answer.status_code == 422, by
    assert save(anna, 2, "k", f0=suggested("data", 0, "corrected")).status_code == 422
    assert list(ledger.changes()) == []
    first = save(anna, 1, "k", f0=suggested("data", 0))
    assert first.status_code == 200
    # to the third the readers are suggested who said something, and nobody else
    assert save(carla, 1, "k", f0=suggested("reader-2", 0)).status_code == 422
    assert save(carla, 1, "k", f0=suggested("reader-1", 0)).status_code == 200


def test_what_was_accepted_stays_when_the_model_is_another(enter, ledger):
    from dwarf_cxr.data.records import Box
    from dwarf_cxr.review.annotation import Assessment, MarkedRegion, Suggested

    region = MarkedRegion(Box(5.5, 6.0, 30.0, 40.25), "accepted", Suggested("run-old", 3))
    state = ledger.edit(0, "anna", {"Mass": Assessment("present", (region,))}, version=0, key="k")
    again = {**suggested("run-old", 3), "comment": "sure"}
    assert save(enter(ANNA), 1, "l", state.version, f0=again).status_code == 200


def test_without_the_token_nothing_is_changed(enter, ledger):
    anna = enter(ANNA)
    del anna.headers["X-CSRF-Token"]
    assert save(anna, 1, "k", f0=drawn(BOX)).status_code == 403
    anna.headers["X-CSRF-Token"] = "forged"
    assert save(anna, 1, "k", f0=drawn(BOX)).status_code == 403
    assert list(ledger.changes()) == []


def test_oversize_is_refused(enter, ledger):
    comment = {"verdict": None, "regions": [], "comment": "a" * BODY}
    assert save(enter(ANNA), 1, "k", f0=comment).status_code == 413
    assert list(ledger.changes()) == []


def test_a_large_painted_mask_is_not_too_much(enter, ledger):
    # a film's worth of noise, the longest run lengths there are
    from dwarf_cxr.data.geometry import encode_mask
    from dwarf_cxr.review.annotation import shape_to_json

    mask = encode_mask(np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.5)
    assert save(enter(ANNA), 1, "k", f0=drawn(shape_to_json(mask))).status_code == 200
    (saved,) = ledger.said()[0, "Mass"]["anna"].regions
    assert saved.shape.counts == mask.counts


@pytest.mark.parametrize(
    "path",
    [
        "/films/0",
        "/films/7",
        "/films/-1",
        "/films/1/maps/0.png",
        "/films/99999999999999999999",
        "/films/../review.json",
        "/films/%2e%2e/%2e%2e/etc/passwd",
        "/films/1%2f..%2f..%2freview.db",
        "/films/..%5c..%5csecret",
        "/static/../pages.py",
        "/static/%2e%2e/store.py",
        "/static/..%2f..%2fstore.py",
        "/static//etc/passwd",
        "/films/1/film.png%00.txt",
    ],
)
def test_no_path_leads_out(enter, path):
    answer = enter(ANNA).get(path)
    assert answer.status_code in (404, 422)
    assert b"root:" not in answer.content
    assert b"import" not in answer.content


def test_html_in_comments_and_names_stays_text(enter, ledger, review):
    evil = '<script>alert("x")</script><img src=x onerror=alert(1)>'
    anna, ben = enter(ANNA), enter(BEN)
    save(anna, 1, "a", f0=drawn(BOX, comment=evil))
    save(ben, 1, "b", f0={"verdict": "absent", "regions": [], "comment": ""})
    for client in (anna, enter(OWNER), enter(CARLA)):
        for page in ("/", "/films/1"):
            assert "<script>alert" not in client.get(page).text
            assert "onerror" not in client.get(page).text
    told = enter(CARLA).get("/films/1/state")
    assert told.headers["content-type"] == "application/json"
    assert told.json()["suggestions"][0][0]["comment"] == evil
    assert told.headers["x-content-type-options"] == "nosniff"


def test_readers_are_blind_to_each_other_and_the_third_sees_no_names(enter):
    anna, ben, carla = enter(ANNA), enter(BEN), enter(CARLA)
    assert "agree on everything" in carla.get("/").text
    save(anna, 2, "a", f0=drawn(BOX))
    said = ben.get("/films/2/state").json()
    assert [one["by"] for one in said["suggestions"][0]] == ["data"]
    assert said["findings"][0]["verdict"] is None
    save(ben, 2, "b", f0={"verdict": "absent", "regions": [], "comment": ""})
    assert "Film 2" in carla.get("/").text
    assert carla.get("/next", follow_redirects=False).headers["location"] == "/films/2"
    shown = carla.get("/films/2/state")
    assert [one["by"] for one in shown.json()["suggestions"][0]] == ["reader-1", "reader-2", "data"]
    for name in ("anna", "ben"):
        assert name not in carla.get("/films/2").text + shown.text
    save(carla, 2, "c", f0=drawn(BOX))
    assert carla.get("/next", follow_redirects=False).headers["location"] == "/"
    overview = enter(OWNER).get("/").text
    assert "0 findings of films need a third opinion" in overview
    assert enter(OWNER).get("/films/2").status_code == 403


def test_the_queue_goes_on_where_the_reader_stopped(enter, review):
    anna = enter(ANNA)
    assert anna.get("/next", follow_redirects=False).headers["location"] == "/films/1"
    nothing = {"verdict": "absent", "regions": [], "comment": ""}
    save(anna, 1, "a", f0=nothing, f1=nothing, f2=nothing)
    save(anna, 2, "b", f0=nothing)
    page = anna.get("/").text
    assert "1 of 6 done" in page
    assert page.index("✓ done") < page.index("◐ begun") < page.index("○ new")
    assert anna.get("/next", follow_redirects=False).headers["location"] == "/films/2"


def test_who_is_off_the_list_reads_and_writes_nothing_more(enter, ledger, review, data):
    anna, ben, carla = enter(ANNA), enter(BEN), enter(CARLA)
    assert save(ben, 1, "a", f0=drawn(BOX)).status_code == 200
    begin(review.folder, data.folder, readers=["anna", "dora"], adjudicator="emil")
    for gone in (ben, carla):
        for page in ("/", "/next", "/films/1", "/films/1/state", "/films/1/film.png"):
            answer = gone.get(page, follow_redirects=False)
            assert answer.status_code == 403
        assert "You are not among the readers of this review." in gone.get("/").text
        assert save(gone, 2, "b", f0=drawn(BOX)).status_code == 403
    assert len(list(ledger.changes())) == 1
    assert anna.get("/films/1").status_code == 200
    assert enter(Visitor("reader", "dora")).get("/films/1").status_code == 200
    begin(review.folder, data.folder, readers=["anna", "ben"])
    assert ben.get("/films/1").status_code == 200


def test_eight_readers_at_once(data, tmp_path):
    names = [f"reader {one}" for one in range(8)]
    review = begin(tmp_path / "review", data.folder, readers=names)
    with closing(Ledger(review.database)) as ledger:
        _read_at_once(review, ledger, names)


def _read_at_once(review, ledger, names):
    links = Links.of(review.folder)
    guard = application(review, ledger, links)
    statuses = []

    def read(name):
        client = TestClient(guard, "http://localhost")
        visitor = Visitor("reader", name)
        client.get(links.path(visitor))
        client.headers["X-CSRF-Token"] = links.form_token(visitor)
        version = 0
        for number in range(5):
            answer = save(client, 1, f"k{number}", version, f0=drawn(BOX, comment=str(number)))
            statuses.append(answer.status_code)
            version = answer.json()["version"]

    threads = [threading.Thread(target=read, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40
    rows = list(ledger.changes())
    assert len(rows) == 40
    assert {json.loads(row.after)["comment"] for row in rows} == set("01234")


def test_only_findings_of_the_review_count(data, tmp_path):
    """With fewer findings than before, what was said of the others makes no film done."""
    nothing = {"verdict": "absent", "regions": [], "comment": ""}
    for findings, expected in ((None, "0 of 6 done"), (["Mass", "Effusion"], "0 of 6 done")):
        begun = begin(
            tmp_path / "narrow",
            data.folder,
            readers=["anna", "ben"],
            adjudicator="carla",
            findings=findings,
        )
        links = Links.of(begun.folder)
        with closing(Ledger(begun.database)) as ledger:
            guard = application(begun, ledger, links)
            clients = {}
            for visitor in (ANNA, BEN, CARLA, OWNER):
                client = TestClient(guard, "http://localhost")
                client.get(links.path(visitor))
                client.headers["X-CSRF-Token"] = links.form_token(visitor)
                clients[visitor.name] = client
            if findings is None:
                save(clients["anna"], 1, "a", f0=nothing, f2=nothing)
                save(clients["ben"], 1, "b", f2=drawn(BOX))
                assert "Film 1" in clients["carla"].get("/").text
            assert expected in clients["anna"].get("/").text
    # the third is not asked for what cannot be answered any more
    assert "agree on everything" in clients["carla"].get("/").text
    assert "0 findings of films need" in clients["owner"].get("/").text
