import csv
import dataclasses
import re
import secrets

import pytest
from typer.testing import CliRunner

from dwarf_cxr.cli import app
from dwarf_cxr.errors import DataError
from dwarf_cxr.study import report as report_module
from dwarf_cxr.study.answers import (
    QUESTIONS,
    Progress,
    invite,
    item_at,
    open_answers,
    save_answer,
)
from dwarf_cxr.study.cells import safe_cell
from dwarf_cxr.study.folder import read_key
from dwarf_cxr.study.judgements import judgements
from dwarf_cxr.study.report import analyse, lines, page, write_report
from dwarf_cxr.web.store import reading
from tests.study.made import answer_all, design, given_by

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


def table_of(study, out, name):
    write_report(study.folder, out, draws=100)
    return table(out / name)


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
    own = next(row for row in agreement if row["kind"] == "with oneself")
    assert (own["same"], own["of"]) == ("2", "2")
    assert float(own["same_low"]) == pytest.approx(0.342, abs=0.001)
    assert float(own["same_high"]) == 1


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


def reported(films, say, *, readers=("ann",), findings=("Mass",), runs=("a", "b"), repeats=0):
    """A report of readers who answer everything by `say`, of a comparison and a question."""
    study, key = design(runs, films, findings)
    given = [
        answer
        for seed, reader in enumerate(readers)
        for answer in given_by(
            study, key, reader, say, repeats=repeats, seed=seed, questions=QUESTIONS
        )
    ]
    progress = [Progress(reader, films, films, "now") for reader in readers]
    return analyse(study, key, given, progress, draws=100)


def said(report):
    """What the terminal says, and what the page says, without its marks."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page(report), flags=re.DOTALL)
    return "\n".join(lines(report)), re.sub(r"\s+", " ", text)


def test_only_ties_say_nothing_of_a_preference():
    report = reported(7, lambda *_: None, readers=("ann", "bob"))
    terminal, shown = said(report)
    assert "a over b, overall, all readers: 0 to 0, 14 ties; no untied answer" in terminal
    for words in (terminal, shown):
        assert "too few untied answers to plan with, 0 of 14" in words
        assert "no untied answer to tell by" in words
        assert "100,000" not in words
        assert "p —" not in words
    assert "Cohen's kappa is undefined, since all answers are the same; the same in 7 of 7" in (
        terminal
    )
    # no interval of no length around the half
    assert "[50.0%, 50.0%]" not in shown


@pytest.mark.parametrize("films", [1, 5])
def test_few_untied_answers_say_so(films):
    terminal, shown = said(reported(films, lambda *_: "a"))
    assert f"a over b, overall, one reader: {films} to 0, 0 ties; too few untied answers" in (
        terminal
    )
    assert f"too few untied answers to plan with, {films} of {films}" in terminal
    assert "independent untied answers" not in shown
    assert "1 reader invited" in shown
    assert ("1 comparison," in shown) == (films == 1)


def test_six_untied_answers_are_enough_to_tell():
    terminal, _ = said(reported(6, lambda *_: "a"))
    assert "6 to 0, 0 ties; 100.0% of untied answers [61.0%, 100.0%], p 0.031" in terminal
    assert "100.0% (power 80 %, 5 %, two-sided): 6 independent untied answers, 6 with" in terminal


def test_halves_have_nothing_to_find():
    terminal, _ = said(reported(8, lambda one, _: "ab"[int(one.film[1:]) % 2]))
    assert "no preference was seen that more answers could find" in terminal


def test_small_preferences_take_more_than_can_be_asked():
    # 201 to 200
    terminal, _ = said(reported(401, lambda one, _: "ab"[int(one.film[1:]) % 2]))
    assert "more than 100,000 independent untied answers" in terminal
    assert "(50.1%)" in terminal


def test_every_question_has_its_readers_and_findings():
    report = reported(
        16,
        lambda one, question: None if question == "accuracy" and one.finding == "Mass" else "a",
        readers=("ann", "bob"),
        findings=("Mass", "Edema"),
    )
    terminal = lines(report)
    at = {
        question: terminal.index(line)
        for question in QUESTIONS
        for line in terminal
        if line.startswith(f"a over b, {question}, all readers")
    }
    for question in QUESTIONS:
        block = terminal[at[question] + 1 : at[question] + 5]
        assert [line.split(":")[0] for line in block] == [
            "  reader ann",
            "  reader bob",
            "  finding Mass",
            "  finding Edema",
        ]
    assert "reader ann: 8 to 0, 8 ties" in terminal[at["accuracy"] + 1]
    assert "finding Mass: 0 to 0, 16 ties" in terminal[at["accuracy"] + 3]
    assert "finding Mass: 16 to 0, 0 ties" in terminal[at["specificity"] + 3]


def test_the_only_reader_and_the_only_finding_are_told_once():
    report = reported(9, lambda *_: "b")
    assert sum("0 to 9, 0 ties" in line for line in lines(report)) == len(QUESTIONS)
    assert {row.group for row in report.preferences} == {"all", "reader", "finding"}
    assert "One reader has answered: nobody to agree with" in page(report)


def test_readers_without_a_comparison_in_common():
    study, key = design(("a", "b"), 6, ("Mass",))
    given = []
    for number, reader in enumerate(("ann", "bob")):
        its = given_by(study, key, reader, lambda *_: "a", seed=number)
        given += [one for one in its if int(one.comparison_id[1:-2]) % 2 == number]
    report = analyse(study, key, given, [], draws=100)
    terminal, _ = said(report)
    assert "agreement of ann, bob: no comparison that all of them answered" in terminal
    assert "accuracy" not in terminal
    assert "Nobody has answered this yet." in page(report)


def test_nothing_but_a_comment():
    study, key = design(("a", "b"), 3)
    (one,) = given_by(study, key, "ann", lambda *_: "a")[:1]
    only = dataclasses.replace(one, answers={"comment": "hm"})
    terminal, shown = said(analyse(study, key, [only], [], draws=100))
    for words in (terminal, shown):
        assert "no answer on the overall preference yet" in words
    assert shown.count("Nobody has answered this yet.") == 3
    assert judgements(study, key, [only])[0].outcomes == {}


def test_runs_that_never_won_have_no_strength():
    first = {"0": "a", "1": "a", "2": "b"}
    terminal, shown = said(
        reported(4, lambda one, _: first[one.comparison_id[-1]], runs=("a", "b", "c"))
    )
    for words in (terminal, shown):
        assert "undefined: some runs never won against the others" in words


def test_repeats_in_words():
    terminal, _ = said(reported(8, lambda *_: "a", repeats=1))
    assert "ann: the same answer to 1 of 1 comparisons shown twice, overall" in terminal


def test_report_is_of_one_state_while_readers_answer(answered, tmp_path, monkeypatch):
    before = len(table_of(answered, tmp_path / "before", "history.csv"))
    progress_of = report_module.progress_of

    def answer_meanwhile(session):
        engine = open_answers(answered)
        with reading(engine) as other:
            item = item_at(other, "=1+1", 2)
        save_answer(engine, item, "comment", "while it was written", secrets.token_hex(8))
        engine.dispose()
        return progress_of(session)

    monkeypatch.setattr(report_module, "progress_of", answer_meanwhile)
    assert len(table_of(answered, tmp_path / "meanwhile", "history.csv")) == before
    monkeypatch.undo()
    assert len(table_of(answered, tmp_path / "after", "history.csv")) == before + 1


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
    invited = [dwarf("invite", out, "ann", "Dr. Bob", "--port", 8123) for _ in range(2)]
    links = [one.stdout for one in invited]
    assert links[0] == links[1]
    # beside the table of links, not in it
    assert invited[0].stderr.endswith(
        f"only while the pages are served there: dwarf study serve {out} --port 8123\n"
    )
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
    copied = (tmp_path / "copy.db").read_bytes()
    twice = dwarf("backup", out, "--out", tmp_path / "copy.db")
    assert twice.exit_code == 1
    assert "copy.db: exists; give the name of a new file" in str(twice.exception)
    assert (tmp_path / "copy.db").read_bytes() == copied
    (out / "study.db").unlink()
    for beside in out.glob("study.db-*"):
        beside.unlink()
    (tmp_path / "copy.db").rename(out / "study.db")
    again = dwarf("report", out, "--draws", 100)
    assert again.output == said.output
    assert dwarf("withdraw", out, "eve").exit_code == 1
    assert "ann: link withdrawn" in dwarf("withdraw", out, "ann").output
    anew = dict(
        line.split("\t")
        for line in dwarf("invite", out, "ann", "Dr. Bob", "--port", 8123).stdout.splitlines()
    )
    assert anew["ann"] != lines["ann"]
    assert anew["Dr. Bob"] == lines["Dr. Bob"]
    # what was answered is kept
    assert dwarf("report", out, "--draws", 100).output == said.output
    for command in ("create", "invite", "withdraw", "serve", "report", "backup"):
        assert "--" in dwarf(command, "--help").output


def test_without_the_extra_the_remedy_is_named(study, monkeypatch):
    import importlib.util

    from dwarf_cxr import web

    found = importlib.util.find_spec
    monkeypatch.setattr(
        web, "find_spec", lambda name: None if name in ("uvicorn", "sqlmodel") else found(name)
    )
    for command in (
        ["invite", "ann"],
        ["withdraw", "ann"],
        ["serve"],
        ["report"],
        ["backup", "--out", "x.db"],
    ):
        words = ["study", command[0], str(study.folder), *command[1:]]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 1
        assert "need sqlmodel, uvicorn, not installed" in str(result.exception)
        assert "dwarf-cxr[web]" in str(result.exception)
