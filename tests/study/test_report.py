import csv
import re
import secrets

import pytest
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.errors import DataError
from dwarf_cxr.study.answers import invite, item_at, open_answers, save_answer
from dwarf_cxr.study.cells import safe_cell
from dwarf_cxr.study.folder import read_key
from dwarf_cxr.study.report import write_report
from dwarf_cxr.web.store import reading
from tests.study.made import answer_all

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def answered(study):
    engine = open_answers(study)
    names = ["=1+1", EVIL]
    invite(engine, study, read_key(study.folder), names)
    # the first reader prefers the first run but for specificity; the second ties on effusions
    answer_all(
        study,
        lambda question, first_left, finding: "AB"[first_left == (question == "specificity")],
        names[0],
    )
    answer_all(
        study,
        lambda question, first_left, finding: "tie" if finding == "Effusion" else "BA"[first_left],
        names[1],
    )
    with reading(engine) as session:
        item = item_at(session, names[0], 1)
    for comment in ('=HYPERLINK("http://x")', "@SUM(A1)", f"{EVIL}\nsecond line"):
        save_answer(engine, item, "comment", comment, secrets.token_hex(8))
    engine.dispose()
    return study


def table(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_tables(answered, tmp_path):
    lines = write_report(answered.folder, tmp_path / "out", draws=200)
    rows = table(tmp_path / "out" / "preferences.csv")
    found = {
        (row["question"], row["name"]): (
            row["first_preferred"],
            row["second_preferred"],
            row["ties"],
        )
        for row in rows
    }
    assert found["overall", ""] == ("30", "0", "10")
    assert found["specificity", ""] == ("10", "20", "10")
    assert found["overall", "Effusion"] == ("10", "0", "10")
    assert found["overall", f"'{'=1+1'}"] == ("20", "0", "0")
    assert {row["first"] for row in rows} == {"zebra-one"}
    answers = table(tmp_path / "out" / "answers.csv")
    assert len(answers) == 44
    assert {row["image_id"][:7] for row in answers} == {"giraffe"}
    for row in answers:
        if row["reader"] == "'=1+1":
            assert (row["overall"], row["specificity"]) == ("zebra-one", "okapi-two")
    assert sum(int(row["repeat"]) for row in answers) == 4
    history = table(tmp_path / "out" / "history.csv")
    assert len(history) == 44 * 4 + 3
    assert answers[0]["changes"] == "2"
    assert lines[-1].endswith("report.html")
    assert any(
        "zebra-one over okapi-two, overall, all readers: 30 to 0, 10 ties" in line for line in lines
    )
    agreement = table(tmp_path / "out" / "agreement.csv")
    assert {row["kind"] for row in agreement} == {"between readers (Cohen)", "with oneself"}


def test_no_cell_is_a_formula(answered, tmp_path):
    write_report(answered.folder, tmp_path, draws=100)
    for path in tmp_path.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.reader(stream):
                for cell in row:
                    if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
                        float(cell)  # a negative number is none


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "  =1", "＝1", "\n=1"])
def test_safe_cells(text):
    assert safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a=1", "Dr. O'Neil", "1+1", " x"])
def test_harmless_cells(text):
    assert safe_cell(text) == text


def test_page_is_alone_and_runs_nothing(answered, tmp_path):
    write_report(answered.folder, tmp_path, draws=100)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert re.findall(r'(?:src|href)="(?!#)', page) == []
    assert "zebra-one over okapi-two" in page
    assert "giraffe" not in page
    assert "walrus" not in page


def test_same_answers_same_page(answered, tmp_path):
    write_report(answered.folder, tmp_path / "a", draws=100)
    write_report(answered.folder, tmp_path / "b", draws=100)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_nothing_answered(study, tmp_path):
    with pytest.raises(DataError, match="nothing was answered"):
        write_report(study.folder, tmp_path)


def test_commands(made_data, made_models, tmp_path):
    def dwarf(*words):
        return CliRunner().invoke(app, ["study", *map(str, words)])

    out = tmp_path / "study"
    runs = [word for model in made_models[:2] for word in ("--run", model)]
    made = dwarf(
        "create",
        *runs,
        "--data",
        made_data.folder,
        "--findings",
        "Mass, Effusion",
        "--per-finding",
        3,
        "--repeats",
        1,
        "--show-truth",
        "--stretch",
        "--out",
        out,
    )
    assert made.exit_code == 0, made.output
    assert "6 comparisons of 2 runs on 6 films" in made.output
    links = [dwarf("invite", out, "ann", "Dr. Bob", "--port", 8123).output for _ in range(2)]
    assert links[0] == links[1]
    lines = dict(line.split("\t") for line in links[0].splitlines())
    assert list(lines) == ["ann", "Dr. Bob"]
    assert all(link.startswith("http://127.0.0.1:8123/enter/") for link in lines.values())
    from dwarf_cxr.study.folder import Study

    answer_all(Study.open(out), lambda *_: "A", "ann")
    said = dwarf("report", out, "--draws", 100)
    assert said.exit_code == 0, said.output
    assert "ann: 7 of 7 comparisons done" in said.output
    assert "Dr. Bob: 0 of 7 comparisons done" in said.output
    assert (out / "report" / "report.html").is_file()
    assert dwarf("backup", out, "--out", tmp_path / "copy.db").exit_code == 0
    (out / "study.db").unlink()
    for beside in out.glob("study.db-*"):
        beside.unlink()
    (tmp_path / "copy.db").rename(out / "study.db")
    again = dwarf("report", out, "--draws", 100)
    assert again.output == said.output
    for command in ("create", "invite", "serve", "report", "backup"):
        assert "--" in dwarf(command, "--help").output


def test_without_the_extra_the_remedy_is_named(study, monkeypatch):
    import importlib.util

    from dwarf_cxr import web

    found = importlib.util.find_spec
    monkeypatch.setattr(
        web, "find_spec", lambda name: None if name in ("uvicorn", "sqlmodel") else found(name)
    )
    for command in (["invite", "ann"], ["serve"], ["report"], ["backup", "--out", "x.db"]):
        words = ["study", command[0], str(study.folder), *command[1:]]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 1
        assert "need sqlmodel, uvicorn, not installed" in str(result.exception)
        assert "dwarf-cxr[web]" in str(result.exception)
