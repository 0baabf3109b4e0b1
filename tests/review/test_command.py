"""`dwarf review invite|status|backup|export|import` as they are typed."""

import json
import re
import socket
import sqlite3
from contextlib import closing

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.errors import DwarfError
from dwarf_cxr.review.annotation import Assessment
from dwarf_cxr.review.folder import begin, read_settings
from dwarf_cxr.review.ledger import Ledger
from dwarf_cxr.web.links import Links, Visitor
from tests.review.made import ABSENT, HEIGHT, SECRET_NAME, WIDTH, box, present, write_data

COMMANDS = {
    "invite": ("ben",),
    "status": (),
    "backup": ("--out", "copy.db"),
    "export": ("--out", "out.json"),
    "import": ("in.json", "--reader", "ben"),
}


@pytest.fixture
def review(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data")
    begun = begin(tmp_path / "review", tmp_path / "data", readers=["anna", "ben"])
    with closing(Ledger(begun.database)) as ledger:
        for film, name, edits in (
            (0, "anna", {"Mass": present(box(4, 5, 30, 45)), "Effusion": ABSENT}),
            (0, "ben", {"Mass": present(box(4, 5, 30, 25)), "Effusion": present()}),
            (1, "anna", {"Mass": ABSENT, "Effusion": ABSENT, "Nodule": ABSENT}),
        ):
            ledger.edit(film, name, edits, version=0, key="k")
    return begun


def dwarf(*words):
    return CliRunner().invoke(app, ["review", *map(str, words)])


def refused(*words):
    """What the user is told when a command refuses."""
    done = dwarf(*words)
    assert done.exit_code != 0
    assert isinstance(done.exception, DwarfError), done.output
    return str(done.exception)


def files(folder):
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_review_nothing_is_made(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.json").write_text("{}")
    before = files(tmp_path)
    assert "no review there; begin one with" in refused(command, "gone", *COMMANDS[command])
    (tmp_path / "empty").mkdir()
    assert "no review there; begin one with" in refused(command, "empty", *COMMANDS[command])
    assert files(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "in.json"]


@pytest.mark.parametrize("command", ["status", "export", "import"])
def test_data_that_is_gone_is_said(command, review, tmp_path):
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "in.json").write_text("{}")
    assert "no longer in" in refused(command, "review", *COMMANDS[command])


def test_invite_adds_readers_and_prints_their_links(review):
    told = refused("invite", "review", "ben", "zoe and co")
    assert "'zoe and co': not of this review; its readers: anna, ben" in told
    assert "`dwarf review invite review 'zoe and co' --add`" in told
    assert read_settings(review.folder).readers == ("anna", "ben")
    done = dwarf("invite", "review", "ben", "dora", "--add", "--port", 8123)
    assert done.exit_code == 0
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(told) == ["ben", "dora"]
    links = Links.of(review.folder)
    for name, link in told.items():
        path = link.removeprefix("http://127.0.0.1:8123")
        assert links.visitor_of_link(path.removeprefix("/enter/")) == Visitor("reader", name)
    assert read_settings(review.folder).readers == ("anna", "ben", "dora")


@pytest.mark.parametrize("names", [["../evil"], ["dora", "=cmd()"], ["dora", "dora"], [" "]])
def test_invite_refuses_names_and_adds_nobody(review, names):
    assert "reader" in refused("invite", "review", *names, "--add")
    assert read_settings(review.folder).readers == ("anna", "ben")


def test_where_nobody_can_answer_no_link_is_said(review):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = dwarf("serve", "data", "--review", "review", "--port", port)
    assert "cannot be bound" in str(done.exception)
    assert done.output == ""


def test_status(review):
    done = dwarf("status", "review")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[:2] == [
        "anna: 1 of 6 films done, 1 begun",
        "ben: 0 of 6 films done, 1 begun",
    ]
    # the smaller box is half of the larger
    assert "  anna and ben, Mass: 1, 1, undefined, 0.50 on 1" in lines
    assert "  anna and ben, Effusion: 1, 0, 0.00, none" in lines


@pytest.mark.parametrize("command", ["status", "export"])
def test_what_reads_changes_nothing(command, review, tmp_path):
    with closing(sqlite3.connect(review.database)) as connection:
        # what a killed server leaves behind is neither lost nor moved
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        before = files(tmp_path)
        assert dwarf(command, "review", *COMMANDS[command]).exit_code == 0
        after = files(tmp_path)
        after.pop((tmp_path / "out.json").relative_to(tmp_path), None)
        assert after == before


@pytest.mark.parametrize("command", ["status", "export", "write"])
def test_what_reads_sees_what_a_server_just_wrote_and_leaves_the_log(command, review, tmp_path):
    words = {"write": ("--out", "new"), **COMMANDS}[command]
    with closing(Ledger(review.database)) as ledger:
        ledger.edit(4, "dora", {"Nodule": ABSENT}, version=0, key="k")
        before = files(review.folder)
        done = dwarf(command, "review", *words)
        assert done.exit_code == 0, done.output
        # the index of the log counts its readers; log and database stay as they are
        for name, (content, at) in files(review.folder).items():
            if not name.name.endswith("-shm"):
                assert (content, at) == before[name]
        seen = {
            "status": lambda: "dora: 0 of 6 films done, 1 begun" in done.output,
            "export": lambda: "in 3 films" in done.output,
            "write": lambda: "3 films assessed" in done.output,
        }
        assert seen[command]()


def test_a_review_whose_database_is_gone_or_damaged_is_not_begun_anew(review):
    review.database.write_bytes(b"not a database" * 100)
    for command in ("status", "export"):
        assert "restore a backup" in refused(command, "review", *COMMANDS[command])
    review.database.unlink()
    for command in ("status", "export"):
        assert "no such database" in refused(command, "review", *COMMANDS[command])
    assert not review.database.exists()


def test_backup_once(review, tmp_path):
    done = dwarf("backup", "review", "--out", "copy.db")
    assert (done.exit_code, done.output) == (0, "copy.db\n")
    with closing(Ledger(tmp_path / "copy.db", to_read=True)) as copy:
        assert len(list(copy.changes())) == 7
    before = files(tmp_path)
    assert "exists; give the name of a new file" in refused("backup", "review", "--out", "copy.db")
    assert files(tmp_path) == before


@pytest.mark.parametrize("form", ["coco", "label-studio"])
def test_export_says_where_the_films_are(review, tmp_path, form):
    done = dwarf("export", "review", "--out", "out.json", "--format", form, "--reader", "anna")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "out.json: 1 region in 2 films",
        f"the films are only named, as files under {tmp_path / 'data-films'}; --images writes them",
    ]
    document = json.loads((tmp_path / "out.json").read_text())
    entries = document["images"] if form == "coco" else [task["data"] for task in document]
    names = [one["file_name" if form == "coco" else "image"] for one in entries]
    assert names == [f"{SECRET_NAME}-0.png", f"{SECRET_NAME}-1.png"]
    assert all((tmp_path / "data-films" / name).is_file() for name in names)


@pytest.mark.parametrize("form", ["coco", "label-studio"])
def test_export_says_what_is_in_dispute(review, form):
    with closing(Ledger(review.database)) as ledger:
        for name, shape in (("anna", box(4, 5, 30, 45)), ("ben", box(50, 60, 80, 90))):
            ledger.edit(3, name, {"Nodule": present(shape)}, version=0, key="k")
    done = dwarf("export", "review", "--out", "out.json", "--format", form)
    # of film 1 the box of both readers
    assert done.output.splitlines()[:2] == [
        "out.json: 1 region in 3 films",
        "2 regions left out: readers call the finding present but do not agree where it is, and "
        "nobody decided",
    ]


@pytest.mark.parametrize("form", ["coco", "label-studio"])
def test_export_with_images(review, tmp_path, form):
    done = dwarf("export", "review", "--out", "here/out.json", "--format", form, "--images")
    assert done.exit_code == 0
    assert "the films are in here/out-images" in done.output
    document = json.loads((tmp_path / "here" / "out.json").read_text())
    if form == "coco":
        names = [f"out-images/{one['file_name']}" for one in document["images"]]
    else:
        start = "/data/local-files/?d="
        names = [task["data"]["image"].removeprefix(start) for task in document]
    assert names == ["out-images/000001.png", "out-images/000002.png"]
    for film, name in enumerate(names):
        shown = cv2.imread(str(tmp_path / "here" / name), cv2.IMREAD_UNCHANGED)
        original = cv2.imread(review.data.sources[film], cv2.IMREAD_UNCHANGED)
        assert np.array_equal(shown, original)


def test_coco_says_what_it_is(review, tmp_path):
    from datetime import UTC, datetime, timedelta

    from dwarf_cxr import __version__

    assert dwarf("export", "review", "--out", "out.json").exit_code == 0
    info = json.loads((tmp_path / "out.json").read_text())["info"]
    assert info["version"] == __version__
    assert info["description"].startswith("made, reviewed with dwarf-cxr")
    made = datetime.fromisoformat(info["date_created"])
    assert timedelta(0) <= datetime.now(UTC) - made < timedelta(minutes=2)
    assert info["year"] == made.year


def test_a_region_of_an_unsure_finding_does_not_become_a_present_one(review, tmp_path):
    with closing(Ledger(review.database)) as ledger:
        unsure = Assessment("unsure", present(box(4, 5, 30, 40)).regions)
        ledger.edit(3, "anna", {"Mass": unsure}, version=0, key="k")
    assert dwarf("export", "review", "--out", "out.json", "--reader", "anna").exit_code == 0
    document = json.loads((tmp_path / "out.json").read_text())
    (image,) = (one for one in document["images"] if one["image_id"].endswith("-3"))
    assert image["labels"] == {}
    assert image["id"] not in [one["image_id"] for one in document["annotations"]]


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("out.json", ()),
        ("out-images", ("--images",)),
        ("out.xml", ("--format", "label-studio", "--images")),
    ],
)
def test_export_writes_over_nothing(review, tmp_path, there, words):
    (tmp_path / there).write_text("mine")
    before = files(tmp_path)
    assert f"{there}: exists" in refused("export", "review", "--out", "out.json", *words)
    assert "stays as it is" in refused("export", "review", "--out", "data/out.json", *words)
    assert files(tmp_path) == before


def test_an_export_that_fails_leaves_nothing(review, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = files(tmp_path)
    monkeypatch.setattr("dwarf_cxr.review.coco_files.write_json", full)
    assert dwarf("export", "review", "--out", "out.json", "--images").exit_code != 0
    assert files(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("out", ".out"))]


def test_export_refuses_a_reader_who_said_nothing(review, tmp_path):
    told = refused("export", "review", "--out", "out.json", "--reader", "dora")
    assert "has said nothing" in told
    assert "anna, ben" in told
    begin(tmp_path / "fresh", tmp_path / "data")
    Ledger(tmp_path / "fresh" / "review.db").close()
    assert "nothing has been assessed yet" in refused("export", "fresh", "--out", "out.json")
    assert not (tmp_path / "out.json").exists()


def coco(**parts):
    image = {"id": 1, "image_id": f"{SECRET_NAME}-2", "width": WIDTH, "height": HEIGHT}
    annotation = {"id": 1, "image_id": 1, "category_id": 4, "bbox": [5, 10, 20, 30]}
    document = {
        "images": [image],
        "categories": [{"id": 4, "name": "Mass"}],
        "annotations": [annotation],
    }
    return {**document, **parts}


def test_import_enters(review, tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(coco()))
    done = dwarf("import", "review", "in.json", "--reader", "ben")
    assert done.output == "1 film, 1 finding and 1 region entered as the words of ben\n"
    with closing(Ledger(review.database)) as ledger:
        (said,) = ledger.state(2, "ben").assessments.values()
    assert said.shapes == (box(5, 10, 25, 40),)
    again = dwarf("import", "review", "in.json", "--reader", "ben")
    assert again.output == "0 films, 0 findings and 0 regions entered as the words of ben\n"


def test_import_counts_what_changed_alone(review, tmp_path):
    image = {**coco()["images"][0], "labels": {"Effusion": 0}}
    (tmp_path / "in.json").write_text(json.dumps(coco(images=[image])))
    dwarf("import", "review", "in.json", "--reader", "ben")
    image["labels"]["Effusion"] = 1
    (tmp_path / "in.json").write_text(json.dumps(coco(images=[image])))
    again = dwarf("import", "review", "in.json", "--reader", "ben", "--replace")
    assert again.output.splitlines() == [
        "1 finding replaced, as ben had said something else",
        "1 film, 1 finding and 0 regions entered as the words of ben",
    ]


def test_import_writes_over_no_words_unless_told(review, tmp_path):
    image = {**IMAGE, "image_id": f"{SECRET_NAME}-0", "labels": {"Nodule": 0}}
    (tmp_path / "in.json").write_text(json.dumps(coco(images=[image])))
    told = refused("import", "review", "in.json", "--reader", "anna")
    assert "anna has said something else before in 1 case: Mass in film 1;" in told
    assert rows(review) == 7
    done = dwarf("import", "review", "in.json", "--reader", "anna", "--replace")
    assert done.output.splitlines() == [
        "1 finding replaced, as anna had said something else",
        "1 film, 2 findings and 1 region entered as the words of anna",
    ]


def test_import_makes_nobody_a_reader(review, tmp_path):
    (tmp_path / "in.json").write_text(json.dumps(coco()))
    told = refused("import", "review", "in.json", "--reader", "dora")
    assert "'dora': not of this review; its readers: anna, ben; add one with" in told
    assert read_settings(review.folder).readers == ("anna", "ben")
    assert rows(review) == 7


def test_import_takes_experts_words_alone(review, tmp_path):
    teachers = {**ANNOTATION, "id": 2, "kind": "pseudo", "bbox": [40, 50, 20, 30]}
    own = {**ANNOTATION, "kind": "expert"}
    (tmp_path / "in.json").write_text(json.dumps(coco(annotations=[own, teachers])))
    done = dwarf("import", "review", "in.json", "--reader", "ben")
    assert done.output.splitlines() == [
        "1 annotation of kind 'pseudo' left out: no reader's words",
        "1 film, 1 finding and 1 region entered as the words of ben",
    ]


def test_an_accepted_outline_stays_one_by_way_of_a_file(review, tmp_path):
    accepted = {**ANNOTATION, "origin": "accepted"}
    test_film = {**IMAGE, "image_id": f"{SECRET_NAME}-3"}
    (tmp_path / "in.json").write_text(json.dumps(coco(images=[test_film], annotations=[accepted])))
    assert dwarf("import", "review", "in.json", "--reader", "ben").exit_code == 0
    done = dwarf("write", "review", "--out", "new", "--reader", "ben")
    assert "1 region of val and test films left out" in done.output


GOOD = coco()
IMAGE, ANNOTATION = GOOD["images"][0], GOOD["annotations"][0]
FOREIGN = {**IMAGE, "id": 2, "image_id": None, "file_name": "elsewhere.png"}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("{", "in.json"),
        ("[1]", "list 'images'"),
        (coco(annotations={}), "list 'annotations'"),
        (coco(images=[IMAGE, FOREIGN]), "elsewhere.png"),
        (coco(images=[IMAGE, IMAGE]), "an id each"),
        (coco(images=[{**IMAGE, "id": None}]), "an id each"),
        (coco(images=[IMAGE, {**IMAGE, "id": 2}]), "given twice"),
        (coco(images=[{**IMAGE, "width": 0}]), "whole and positive"),
        (coco(images=[{**IMAGE, "labels": {"Effusion": "yes"}}]), "label 'yes' of Effusion"),
        (coco(images=[{**IMAGE, "labels": {"Mass": 0}}]), "labelled absent"),
        (coco(images=[{**IMAGE, "labels": {"Mass": [1]}}]), "label [1] of Mass"),
        (coco(images=[{**IMAGE, "labels": ["Mass"]}]), "labels ['Mass']"),
        (coco(images=[IMAGE, {**IMAGE, "id": 2, "width": 45, "height": 60}]), "given twice"),
        (coco(categories=[{"id": 4, "name": "Lung tip"}]), "category_id 4"),
        (coco(categories=[{"id": 4, "name": "Mass"}, {"id": 4, "name": "Nodule"}]), "an id each"),
        (coco(annotations=[ANNOTATION, {**ANNOTATION, "image_id": 9}]), "image_id 9"),
        (coco(annotations=[ANNOTATION, {**ANNOTATION, "bbox": [900, 1, 2, 2]}]), "outside"),
        (coco(annotations=[ANNOTATION, {**ANNOTATION, "bbox": [1, 1, "a", 2]}]), "bbox"),
    ],
)
def test_import_of_a_bad_file_enters_nothing(review, tmp_path, written, told):
    text = written if isinstance(written, str) else json.dumps(written)
    (tmp_path / "in.json").write_text(text)
    assert told in refused("import", "review", "in.json", "--reader", "ben")
    assert rows(review) == 7
    assert read_settings(review.folder).readers == ("anna", "ben")


def rows(review):
    with closing(Ledger(review.database)) as ledger:
        return len(list(ledger.changes()))


def test_import_names_labels_of_other_findings(review, tmp_path):
    image = {**IMAGE, "labels": {"Lung tip": 1, "Effusion": None}}
    (tmp_path / "in.json").write_text(json.dumps(coco(images=[image])))
    done = dwarf("import", "review", "in.json", "--reader", "ben")
    assert done.exit_code == 0
    assert "not findings of the review, their labels are left out: Lung tip" in done.output


def test_an_import_that_breaks_off_enters_nothing(review, tmp_path, monkeypatch):
    other = {**IMAGE, "id": 2, "image_id": f"{SECRET_NAME}-3"}
    both = [ANNOTATION, {**ANNOTATION, "id": 2, "image_id": 2}]
    document = coco(images=[IMAGE, other], annotations=both)
    (tmp_path / "in.json").write_text(json.dumps(document))
    from dwarf_cxr.review import ledger

    add, calls = ledger._add, []

    def fails_at_the_second(*words):
        calls.append(words)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        add(*words)

    monkeypatch.setattr(ledger, "_add", fails_at_the_second)
    assert dwarf("import", "review", "in.json", "--reader", "ben").exit_code != 0
    assert len(calls) == 2
    assert rows(review) == 7


def test_import_refuses_a_missing_file_and_a_bad_name(review):
    assert re.search(
        "gone.json.*no such file", refused("import", "review", "gone.json", "--reader", "ben")
    )
    assert "reader '<b>'" in refused("import", "review", "in.json", "--reader", "<b>")
    assert rows(review) == 7
