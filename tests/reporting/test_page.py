import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from dwarf_cxr.errors import DataError, DwarfError
from dwarf_cxr.reporting.intervals import NO_INTERVAL_RULE, VERDICT_RULE
from dwarf_cxr.reporting.page import compare, run_page
from dwarf_cxr.reporting.tables import supervision_words
from tests.reporting.made import DRAWS, FINDINGS, ODD, write_data, write_run


class Reader(HTMLParser):
    """What a browser would make of a page: its elements, the rows of its tables, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.titles: list[str] = []
        self.text = ""
        self.cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self.titles.append(attributes.get("title") or "")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self.cell is not None:
            self.tables[-1][-1].append("|".join(self.cell))
            self.cell = None

    def handle_data(self, data):
        self.text += data
        if self.cell is not None and data.strip():
            self.cell.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(made_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert compare(made_runs, out, draws=DRAWS) == out
    return out


@pytest.fixture(scope="module")
def read(page):
    return Reader(page.read_text(encoding="utf-8"))


def metrics_of(run):
    return json.loads((run / "eval-test" / "metrics.json").read_text(encoding="utf-8"))


def test_page_asks_for_nothing(page, read):
    text = page.read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert not {"script", "iframe", "object"} & {tag for tag, _ in read.elements}
    assert all(image["src"].startswith("data:image/") for image in read.all("img"))
    assert [link["href"] for link in read.all("link")] == ["data:,"]
    assert "url(" not in text
    assert "@import" not in text


def test_every_section_is_there_and_linked(read):
    identifiers = {attributes.get("id") for attributes in read.all("section")}
    wanted = {"summary", "differences", "forest", "roc", "training", "films", "findings"}
    assert identifiers == wanted | {"localisation", "oracle", "protocol", "mean-maps", "methods"}
    assert {link["href"] for link in read.all("a")} == {f"#{name}" for name in identifiers}


def test_names_are_escaped(page, read):
    assert ODD not in page.read_text(encoding="utf-8")
    assert ODD in read.text
    assert "made <up>" in read.text


def test_every_image_is_described(read):
    assert all(image["alt"] for image in read.all("img"))


def test_numbers_are_those_of_the_metrics_files(made_runs, read):
    summary = read.tables[0]
    columns = [
        "auc",
        "f1",
        "mcc",
        "accuracy",
        "dice",
        "max_dice",
        "dice_lost_shuffled",
        "iou",
        "hit_rate",
        "energy_inside",
        "fp_area",
    ]
    for run, row in zip(made_runs, (summary[1], summary[2], summary[3]), strict=True):
        metrics = metrics_of(run)
        assert row[0] == f"{run.name}|{metrics['method']}, seed {metrics['seed']}"
        for metric, cell in zip(columns, row[1:-1], strict=True):
            entry = metrics["macro"][metric]
            shown = [
                float(part.replace("−", "-")) for part in re.findall(r"−?[0-9]\.[0-9]{3}", cell)
            ]
            title = f"{entry['value']!r}, n = {entry['n']}"
            if entry["low"] == entry["high"]:
                assert shown == [round(entry["value"], 3)]
                assert "|—" in cell
                title += "; no interval: the same in every draw, as with a single film"
            else:
                assert shown == [round(entry[key], 3) for key in ("value", "low", "high")]
            assert title in read.titles
            assert ("|2 of 3" in cell) == (entry["n"] == 2)
        assert row[-1] == "1 min 34 s|3 epochs"


def test_references_and_parts_stand_below_the_runs(made_runs, read):
    rows = {row[0]: row for row in read.tables[0][1:]}
    for run in made_runs:
        shuffled = metrics_of(run)["references"]["shuffled"]["macro"]["dice"]["value"]
        assert rows[f"own maps, shuffled|reference of {run.name}"][5].startswith(f"{shuffled:.3f}|")
    prior = metrics_of(made_runs[0])["references"]["train_prior"]["macro"]["dice"]["value"]
    assert rows["train prior|reference of all runs"][5].startswith(f"{prior:.3f}|")
    evidence = metrics_of(made_runs[2])["parts"]["evidence"]["macro"]["dice"]["value"]
    assert rows["evidence alone|part of prior"][5].startswith(f"{evidence:.3f}|")


def test_oracle_is_labelled_as_one(read):
    heads = [row[0] for row in read.tables]
    shown = [cell for head in heads for cell in head if cell.startswith("Max Dice")]
    assert set(shown) == {"Max Dice|oracle over thresholds"}
    # only the table of methods shows Dice without it
    assert len(shown) == len([head for head in heads if "Dice" in head]) - 1


def test_thresholds_that_peek_stand_in_a_table_of_their_own(made_runs, page, read):
    (place,) = [
        number
        for number, table in enumerate(read.tables)
        if any("oracle threshold by MCC" in cell for cell in table[0])
    ]
    group, head, *rows = read.tables[place]
    assert [cell.split("|")[0] for cell in group[1:]] == [
        "oracle threshold by MCC",
        "oracle threshold by F1",
    ]
    assert head == ["Run", "MCC", "F1", "Accuracy", "F1", "MCC", "Accuracy"]
    for run, row in zip(made_runs, rows, strict=True):
        block = metrics_of(run)["oracle"]
        values = [block["macro"][name]["value"] for name in ("mcc", "f1", "accuracy")]
        values += [block["max_f1"]["macro"][name]["value"] for name in ("f1", "mcc", "accuracy")]
        shown = [float(cell.split("|")[0].replace("−", "-")) for cell in row[1:]]
        assert shown == [round(value, 3) for value in values]
    assert "thresholds chosen on these very films" in read.text
    section = page.read_text(encoding="utf-8").split('<section id="oracle">')[1]
    assert section.split("</section>")[0].count("<table>") == 1


def test_localisation_at_every_threshold(made_runs, read):
    tables = [table for table in read.tables if any("T(IoU)" in cell for cell in table[0])]
    # macro of all runs, then every run's findings; both by two policies
    assert len(tables) == 2 + 2 * len(made_runs)
    thresholds = [".1", ".2", ".3", ".4", ".5", ".6", ".7"], [".1", ".25", ".5", ".75", ".9"]
    heads = [*(f"0{one}" for one in thresholds[0]), "mTIoU"]
    heads += [*(f"0{one}" for one in thresholds[1]), "mTIoR"]
    for table, policy, prefix in zip(tables, ("validation", "ham"), ("", "ham_"), strict=False):
        assert table[1] == ["Run", *heads]
        for run, row in zip(made_runs, table[2:], strict=True):
            metrics = metrics_of(run)
            values = []
            for measure in ("iou", "ior"):
                block = metrics["localisation"][policy][measure]["macro"]
                values += [entry["value"] for entry in block.values()]
                values.append(metrics["macro"][f"{prefix}t_{measure}"]["value"])
            shown = [float(cell.split("|")[0]) for cell in row[1:]]
            assert shown == [round(value, 3) for value in values]
    assert [row[0] for row in tables[2][2:]] == list(FINDINGS)


def test_runs_from_before_hams_protocol_are_still_shown(made_runs, tmp_path):
    """One of two: its line is empty. All: there is no such section."""
    old = shutil.copytree(made_runs[0], tmp_path / "old")
    metrics = metrics_of(old)
    del metrics["localisation"]
    for block in (metrics["macro"], *metrics["findings"].values()):
        for key in ("t_iou", "t_ior", "ham_t_iou", "ham_t_ior"):
            del block[key]
    (old / "eval-test" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    both = Reader(compare([old, made_runs[1]], tmp_path / "a.html", draws=5).read_text("utf-8"))
    (macro, *_) = [table for table in both.tables if any("T(IoU)" in cell for cell in table[0])]
    assert [row[0].split("|")[0] for row in macro[2:]] == ["second"]
    alone = Reader(compare([old], tmp_path / "b.html", draws=5).read_text("utf-8"))
    assert "localisation" not in {attributes.get("id") for attributes in alone.all("section")}


def methods_of(read):
    """The rows of the table of methods, by run."""
    (table,) = [table for table in read.tables if "Given" in table[0]]
    return table[0], {row[0].split("|")[0]: row for row in table[1:]}


def test_methods_say_what_they_are_given_and_what_they_cost(made_runs, tmp_path):
    folders = [shutil.copytree(run, tmp_path / run.name) for run in made_runs[:2]]
    metrics = metrics_of(folders[0])
    metrics["supervision"] = {
        "films": 47,
        "labels": 1.0,
        "absent_labels": 0.0,
        "regions": 0.534,
        "regions_of": "expert",
        "text": 12,
        "started_from": None,
    }
    metrics["cost"] |= {
        "parameters": {"total": 4_321_000, "trained": 3_210_000},
        "inference_seconds_per_image": 0.0123,
        "threads": 3,
    }
    (folders[0] / "eval-test" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    page = compare(folders, tmp_path / "a.html", draws=5)
    read = Reader(page.read_text(encoding="utf-8"))
    head, rows = methods_of(read)
    first = dict(zip(head, rows["first"], strict=True))
    given = "labels 100 %, regions 53 %, text of 12 films"
    assert first["Given"].replace("\N{NO-BREAK SPACE}", " ") == given
    assert first["Parameters"] == "4.32 M|3.21 M trained"
    assert first["Dice"].startswith(f"{metrics['macro']['dice']['value']:.3f}|")
    assert first["mTIoU (HAM)"].startswith(f"{metrics['macro']['ham_t_iou']['value']:.3f}|")
    # 94 seconds for 3 epochs of 47 films
    assert first["Training|ms a film and epoch"] == "667"
    assert first["Inference|ms a film"] == "12.3"
    assert "3 CPU threads" in read.text
    second = dict(zip(head, rows["second"], strict=True))
    # without the block: 12 steps of batches of 32
    assert second["Given"] == "—"
    assert second["Training|ms a film and epoch"] == "245"


def test_evaluations_from_before_the_cost_was_noted_have_dashes(made_runs, tmp_path):
    old = shutil.copytree(made_runs[0], tmp_path / "old")
    metrics = metrics_of(old)
    del metrics["cost"]
    (old / "eval-test" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (old / "history.csv").unlink()
    read = Reader(compare([old], tmp_path / "a.html", draws=5).read_text(encoding="utf-8"))
    head, rows = methods_of(read)
    row = dict(zip(head, rows["old"], strict=True))
    for column in ("Given", "Parameters", "Training|ms a film and epoch", "Inference|ms a film"):
        assert row[column] == "—"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "none of these data"),
        ({"labels": 0.9996, "regions": 0.004}, "labels 99.9 %, regions 0.4 %"),
        ({"absent_labels": 0.6, "regions": 1.0}, "absent labels 60 %, regions 100 %"),
        ({"regions": 0.5, "regions_of": "pseudo"}, "teachers' regions 50 %"),
        ({"labels": 1.0, "text": 1}, "labels 100 %, text of 1 film"),
        ({"reason": "so it is"}, "— (so it is)"),
    ],
)
def test_supervision_in_words(change, said):
    nothing = {"labels": 0, "absent_labels": 0, "regions": 0, "regions_of": "expert", "text": 0}
    assert supervision_words(nothing | change).replace("\N{NO-BREAK SPACE}", " ") == said


def test_differences_are_to_the_first_run(made_runs, read):
    first, second = (metrics_of(run)["macro"]["auc"]["value"] for run in made_runs[:2])
    row = next(row for row in read.tables[1] if row[0].startswith("second"))
    assert row[1].split("|")[0] == f"{second - first:+.3f}".replace("-", "−")
    assert row[1].split("|")[2] in ("better", "worse", "not clear")


def test_the_rules_and_the_draws_are_said(made_runs, read, tmp_path):
    assert VERDICT_RULE in read.text
    assert NO_INTERVAL_RULE in read.text
    assert f"intervals from {DRAWS} draws of these, the same for both runs" in read.text
    assert f"a bootstrap over patients ({DRAWS} draws)" in read.text
    said = []
    out = compare(made_runs[:2], tmp_path / "a.html", progress=lambda *line: said.append(line))
    other = Reader(out.read_text(encoding="utf-8"))
    # however few the evaluations made
    assert "intervals from 1,000 draws of these" in other.text
    assert f"a bootstrap over patients ({DRAWS} draws)" in other.text
    assert any("1,000 draws" in line for line, _, _ in said)
    alone = []
    compare(made_runs[:1], tmp_path / "b.html", progress=lambda *line: alone.append(line))
    assert not any("draws" in line for line, _, _ in alone)


def test_mean_maps_stand_in_a_table_of_findings_and_runs(made_runs, read):
    (table,) = [table for table in read.tables if len(table[0]) == 4 and "first|" in table[0][1]]
    assert [cell.split("|")[0] for cell in table[0]] == ["Finding", "first", "second", "prior"]
    assert [row[0] for row in table[1:]] == list(FINDINGS)
    assert {len(row) for row in table} == {4}


def test_films_of_every_drawn_finding_and_the_reason_for_the_others(read):
    films = [image["alt"] for image in read.all("img")]
    for finding in FINDINGS[:2]:
        assert sum(f"Map of first for {finding} on film" in alt for alt in films) == 3
        assert sum(f"Prior of prior for {finding} on film" in alt for alt in films) == 3
        assert sum(f"Evidence of prior for {finding} on film" in alt for alt in films) == 3
    assert not any("Nodule" in alt for alt in films)
    assert "Nothing to show: no image with the finding has a region." in read.text
    assert {"Best", "Median", "Worst"} <= set(re.findall(r"(\w+) case", read.text))


def test_too_few_seeds_are_said(read):
    assert "Fewer than 3 seeds" in read.text


def test_two_pages_of_the_same_runs_are_equal(made_runs, page, tmp_path):
    again = compare(made_runs, tmp_path / "again.html", draws=DRAWS)
    assert again.read_bytes() == page.read_bytes()


def test_cases_per_finding(made_runs, tmp_path):
    out = compare(made_runs[:1], tmp_path / "one.html", draws=DRAWS, cases_per_finding=1)
    films = [image["alt"] for image in Reader(out.read_text(encoding="utf-8")).all("img")]
    assert sum("Map of first" in alt for alt in films) == 2


def test_page_of_one_run_has_no_differences(made_runs):
    out = run_page(made_runs[0])
    assert out == made_runs[0] / "eval-test" / "report.html"
    read = Reader(out.read_text(encoding="utf-8"))
    assert "differences" not in {attributes.get("id") for attributes in read.all("section")}
    assert "#differences" not in {link["href"] for link in read.all("a")}
    assert "Fewer than 3 seeds" not in read.text


def test_page_of_a_bare_model_evaluated_elsewhere(made_runs, tmp_path):
    model, evaluation = tmp_path / "model", tmp_path / "elsewhere"
    shutil.copytree(made_runs[0] / "model", model)
    shutil.copytree(made_runs[0] / "eval-test", evaluation)
    out = run_page(model, evaluation=evaluation)
    read = Reader(out.read_text(encoding="utf-8"))
    assert out == evaluation / "report.html"
    assert "a bare model folder" in read.text
    assert "training" not in {attributes.get("id") for attributes in read.all("section")}
    assert any("Map of model" in image["alt"] for image in read.all("img"))


def test_without_the_data_the_page_says_so(made_data, made_runs, tmp_path):
    run = shutil.copytree(made_runs[0], tmp_path / "moved")
    file = run / "eval-test" / "metrics.json"
    gone = str(tmp_path / "gone")
    metrics = metrics_of(run)
    metrics["protocol"]["data"]["folder"] = gone
    file.write_text(json.dumps(metrics), encoding="utf-8")
    read = Reader(compare([run], tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "No films are shown." in read.text
    assert gone in read.text
    assert len(read.all("img")) == 3
    found = compare([run], tmp_path / "b.html", data=made_data.folder)
    assert len(Reader(found.read_text(encoding="utf-8")).all("img")) > 3


def test_other_data_is_refused_when_it_is_named(made_runs, tmp_path):
    other = write_data(tmp_path / "other", seed=9)
    with pytest.raises(DataError, match="holds other data"):
        compare(made_runs[:1], tmp_path / "a.html", data=other.folder)


def test_without_the_model_the_page_says_so(made_runs, tmp_path):
    run = shutil.copytree(made_runs[0], tmp_path / "light")
    shutil.rmtree(run / "model")
    read = Reader(compare([run], tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "No films are shown." in read.text
    assert "no model there" in read.text


def test_without_thresholds_the_oracle_ranks_the_films(made_data, tmp_path):
    run = write_run(tmp_path / "bare", made_data, threshold=None)
    read = Reader(compare([run], tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "chosen by the max Dice (oracle) of bare" in read.text
    assert "cannot be compared with the train prior" in read.text
    assert sum("Map of bare" in image["alt"] for image in read.all("img")) == 6


def test_run_that_was_not_evaluated_names_the_command(made_data, tmp_path):
    run = write_run(tmp_path / "fresh", made_data, evaluated=False)
    command = f"dwarf evaluate {run} --data {made_data.folder} --split test"
    with pytest.raises(DwarfError, match=re.escape(command)):
        compare([run], tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_runs_on_different_data_are_refused(made_runs, tmp_path):
    other = write_run(tmp_path / "other", write_data(tmp_path / "data", seed=4))
    first_data = metrics_of(made_runs[0])["protocol"]["data"]["folder"]
    command = f"`dwarf evaluate {other} --data {first_data} --split test`"
    with pytest.raises(DataError, match=f"evaluated on other data.*{re.escape(command)}"):
        compare([made_runs[0], other], tmp_path / "a.html")


def test_what_another_run_lacks_is_an_evaluation_on_the_data_of_the_first(made_runs, tmp_path):
    fresh = write_run(
        tmp_path / "fresh", write_data(tmp_path / "reviewed", seed=4), evaluated=False
    )
    first_data = metrics_of(made_runs[0])["protocol"]["data"]["folder"]
    command = f"dwarf evaluate {fresh} --data {first_data} --split test"
    with pytest.raises(DwarfError, match=re.escape(command)):
        compare([made_runs[0], fresh], tmp_path / "a.html")


def test_an_evaluation_without_the_oracle_is_to_be_made_again(made_runs, tmp_path):
    run = shutil.copytree(made_runs[0], tmp_path / "old")
    metrics = metrics_of(run)
    del metrics["oracle"]
    (run / "eval-test" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    with pytest.raises(DataError, match=r"oracle is missing; evaluate .* again"):
        compare([run], tmp_path / "a.html")


def test_wrong_lists_of_runs_are_refused(made_runs, tmp_path):
    with pytest.raises(DwarfError, match="no run is given"):
        compare([], tmp_path / "a.html")
    with pytest.raises(DwarfError, match="given twice"):
        compare([made_runs[0], made_runs[1], made_runs[0]], tmp_path / "a.html")
    with pytest.raises(DwarfError, match="no such folder"):
        compare([tmp_path / "nowhere"], tmp_path / "a.html")


def test_runs_with_different_findings_say_so(made_data, made_runs, tmp_path):
    fewer = write_run(tmp_path / "fewer", made_data, seed=5, findings=FINDINGS[1:])
    out = compare([made_runs[0], fewer], tmp_path / "a.html", draws=DRAWS)
    read = Reader(out.read_text(encoding="utf-8"))
    assert "different findings" in read.text
    assert [row[0] for row in read.tables[2][1:]] == list(FINDINGS[1:])


SCROLLED = """[...document.querySelectorAll('.scroll')].map(box => {
  const hidden = box.scrollWidth - box.clientWidth
  box.scrollLeft = hidden
  const frame = box.getBoundingClientRect()
  const cells = [...box.querySelector('tbody tr').children].map(e => e.getBoundingClientRect())
  return {
    hidden,
    reached: cells.at(-1).right <= frame.right + 1,
    named: cells[0].left >= frame.left - 1,
    shadow: getComputedStyle(box).backgroundImage.split('linear-gradient').length > 4,
  }
})"""
"""Of every table that may be wider than its box, after it was moved to its right end."""


@pytest.mark.browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (800, 800), (400, 800)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_in_a_browser(browser, page, width, height, scheme):
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    sizes = tab.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
    overflow = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    # tables may be wider than the page, but then they scroll on their own
    outside = tab.evaluate(
        "[...document.querySelectorAll('p, h1, h2, h3, li, img, figcaption')]"
        ".filter(e => e.getBoundingClientRect().right > window.innerWidth + 1).length"
    )
    tables = tab.evaluate(SCROLLED)
    tab.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert sizes
    assert all(complete and natural > 0 for complete, natural in sizes)
    assert overflow <= 0
    assert outside == 0
    assert len(tables) > 10
    hidden = [one for one in tables if one["hidden"] > 0]
    if width >= 1280:
        assert hidden == []
    # what does not fit can be moved into sight, and names its row while it moves
    assert all(one["reached"] and one["named"] for one in tables)
    assert all(one["shadow"] for one in hidden)
    if width == 400:
        assert hidden
