"""Every recipe is trained, evaluated and shown by the real command, on tiny data."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dwarf_cxr import cli
from dwarf_cxr.config import differences, load_config, save_config
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, TrainingError
from dwarf_cxr.reproduce.command import reproduce
from dwarf_cxr.reproduce.plan import plan_rows
from dwarf_cxr.reproduce.recipes import RECIPES, find_recipe
from dwarf_cxr.reproduce.results import read_results
from dwarf_cxr.reproduce.running import is_evaluated, is_finished
from dwarf_cxr.reproduce.scales import find_scale
from dwarf_cxr.training.run import make_config
from tests.tiny import FINDINGS, WORDS, write_bert, write_data, write_vit


class Place:
    """Tiny encoders and data, and one OUT for all tables, so that shared rows are trained once."""

    def __init__(self, folder: Path) -> None:
        self.data, self.out = folder / "data", folder / "out"
        write_data(self.data, train=17)
        vit, bert = write_vit(folder / "vit"), write_bert(folder / "bert", WORDS)
        encoders = (f"image_encoder={vit}", f"text_encoder={bert}")
        self.assignments = (*encoders, "frozen_layers=0", "map_size=8", "accelerator=cpu")

    def words(self, table: str, *more: str) -> list[str]:
        words = ["reproduce", table, "--data", str(self.data), "--out", str(self.out)]
        for assignment in self.assignments:
            words += ["--set", assignment]
        return [*words, "--tiny", *more]

    def run(self, table: str, *more: str) -> str:
        result = CliRunner().invoke(cli.app, self.words(table, *more), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("reproduce"))


def quiet(line: str, done: int, total: int) -> None:
    pass


def direct(place: Place, table: str, out: Path, **words) -> str:
    return reproduce(
        table,
        [place.data],
        out,
        **{
            "scale": "tiny",
            "assignments": place.assignments,
            "command": "dwarf reproduce",
            "report": quiet,
            **words,
        },
    )


def records(place: Place, table: str) -> list[dict[str, str]]:
    with (place.out / f"{table}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_runs(place, recipe):
    shown = place.run(recipe.name)
    assert f"## {recipe.title}" in shown
    rows = records(place, recipe.name)
    page = (place.out / f"{recipe.name}.html").read_text(encoding="utf-8")
    names = {row["row"] for row in rows}
    assert {re.sub(r"-1$", "", name) for name in names} == {row.name for row in recipe.rows}
    for name in names:
        metrics = json.loads(
            (place.out / "runs" / f"{name}-0" / "eval-test" / "metrics.json").read_text()
        )
        own = {
            row["metric"]: row["value"]
            for row in rows
            if row["row"] == name and row["protocol"] == "test"
        }
        assert float(own["auc"]) == pytest.approx(metrics["macro"]["auc"]["value"])
        assert name in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="http', page)


def test_every_command_of_the_page_makes_the_same_configuration(place):
    rows = plan_rows(
        find_recipe("table4"),
        place.data,
        place.out / "runs",
        scale=find_scale("tiny"),
        seeds=(0, 3),
        assignments=place.assignments,
    )
    for row in rows:
        for training in row.trainings:
            words = shlex.split(training.command)[2:]
            method, options = words[0], list(zip(words[1::2], words[2::2], strict=True))
            single = dict(options)
            config = make_config(
                method,
                Path(single["--data"]),
                findings=single["--findings"].split(","),
                epochs=int(single["--epochs"]),
                seed=int(single["--seed"]),
                assignments=[value for key, value in options if key == "--set"],
            )
            assert config == training.config


def test_the_starter_scale_is_plain_training_with_the_test_split_watched(place):
    (row,) = plan_rows(
        find_recipe("fig3"),
        place.data,
        place.out / "runs",
        scale=find_scale("starter"),
        seeds=(2,),
        assignments=("precision=bf16-mixed",),
        only=["dwarf-long"],
    )
    words = ("evaluate_every=2", "watch_test=true", "precision=bf16-mixed")
    plain = make_config(
        "dwarf", place.data, findings=FINDINGS, epochs=24, seed=2, assignments=words
    )
    assert differences(plain, row.trainings[0].config) == []
    assert row.trainings[0].folder == place.out / "runs" / "dwarf-long-2"


def test_what_is_done_is_not_done_again(place):
    place.run("prompts")
    run = place.out / "runs" / "dwarf-0"
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
    place.run("prompts")
    after = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file()}
    after.pop(run / ".lock", None)
    before.pop(run / ".lock", None)
    assert before == after


def test_an_interrupted_table_continues(place, tmp_path):
    def stop(line: str, done: int, total: int) -> None:
        if "epoch 1/" in line and "validation" in line and "dwarf-description" in line:
            raise TrainingError("interrupted here")

    with pytest.raises(TrainingError, match="same words continues there"):
        direct(
            place, "prompts", tmp_path, report=stop, assignments=(*place.assignments, "epochs=2")
        )
    assert (tmp_path / "runs" / "dwarf-description-0" / "last").is_dir()
    shown = direct(place, "prompts", tmp_path, assignments=(*place.assignments, "epochs=2"))
    assert "Not trained" not in shown
    rows = plan_rows(
        find_recipe("prompts"),
        place.data,
        tmp_path / "runs",
        scale=find_scale("tiny"),
        seeds=(0,),
        assignments=(*place.assignments, "epochs=2"),
    )
    for row in rows:
        assert row.trainings[0].config.settings.training.epochs == 2
        assert is_finished(row.trainings[0])
        assert is_evaluated(row.trainings[0])


def test_print_only_trains_nothing(place, tmp_path):
    with pytest.raises(ConfigError, match="no row of prompts is trained"):
        direct(place, "prompts", tmp_path, print_only=True)
    assert not (tmp_path / "runs").exists()
    direct(place, "prompts", tmp_path, only=["dwarf"])
    (tmp_path / "runs" / "dwarf-0" / "eval-test" / "metrics.json").unlink()
    shown = direct(place, "prompts", tmp_path, print_only=True)
    assert "Not trained or not evaluated yet: dwarf-description-0." in shown
    assert "Finding description" not in shown.split("### ")[1]


def test_another_training_in_the_folder_is_refused(place, tmp_path):
    direct(place, "prompts", tmp_path, only=["dwarf"])
    with pytest.raises(ConfigError, match=r"objective.seg_weight: 0.5 -> 0.25"):
        direct(
            place,
            "prompts",
            tmp_path,
            only=["dwarf"],
            assignments=(*place.assignments, "seg_weight=0.25"),
        )
    file = tmp_path / "runs" / "dwarf-0" / "config.yaml"
    save_config(load_config(file).model_copy(update={"data_fingerprint": "0" * 64}), file)
    with pytest.raises(ConfigError, match="data_fingerprint"):
        direct(place, "prompts", tmp_path, only=["dwarf"], print_only=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"only": ["nobody"]}, "prompts has no row 'nobody'; its rows are dwarf, dwarf-desc"),
        ({"seeds": [1, 1]}, "--seeds: 1, 1; give each once"),
        ({"seeds": []}, "--seeds: none is given"),
        ({"assignments": ["devices=2"]}, "reproduce trains on one device"),
        ({"assignments": ["no=2"]}, "unknown setting 'no'"),
    ],
)
def test_bad_words_are_refused(place, tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        direct(place, "prompts", tmp_path, **words)


def test_seeds_that_are_no_numbers_are_wrong_usage(place):
    result = CliRunner().invoke(cli.app, place.words("prompts", "--seeds", "0,x"))
    assert result.exit_code == 2


def test_a_row_keeps_what_it_is_about(place, tmp_path):
    rows = plan_rows(
        find_recipe("ablations"),
        place.data,
        tmp_path,
        scale=find_scale("tiny"),
        seeds=(0,),
        assignments=(*place.assignments, "fp_weight=3", "epochs=5"),
    )
    named = {row.name: row.trainings[0].config.settings for row in rows}
    assert named["dwarf-plain-dice"].objective.fp_weight == 1
    assert named["dwarf"].objective.fp_weight == 3
    assert {each.training.epochs for each in named.values()} == {5}


def test_several_data_sets_have_a_block_each(place, tmp_path):
    other = tmp_path / "other"
    write_data(other, seed=3, train=15)
    result = CliRunner().invoke(
        cli.app,
        place.words("prompts", "--data", str(other), "--only", "dwarf"),
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    run = load_config(place.out / "runs" / "other" / "dwarf-0" / "config.yaml")
    assert run.data_fingerprint == PreparedData.open(other).fingerprint
    assert result.output.count("### tiny") == 2


def test_seeds_are_averaged(place, tmp_path):
    direct(place, "prompts", tmp_path, only=["dwarf"], seeds=[0, 1])
    rows = plan_rows(
        find_recipe("prompts"),
        place.data,
        tmp_path / "runs",
        scale=find_scale("tiny"),
        seeds=(0, 1),
        assignments=place.assignments,
        only=["dwarf"],
    )
    (result,) = read_results(rows, draws=20)
    values = [
        json.loads((training.evaluation / "metrics.json").read_text())["macro"]["auc"]["value"]
        for training in rows[0].trainings
    ]
    assert result.honest("auc").value == pytest.approx(sum(values) / 2)
    best = []
    for training in rows[0].trainings:
        with (training.folder / "history.csv").open(newline="") as stream:
            best.append(max(float(row["oracle_test_auc"]) for row in csv.DictReader(stream)))
    assert result.oracle["auc"].value == pytest.approx(sum(best) / 2)
