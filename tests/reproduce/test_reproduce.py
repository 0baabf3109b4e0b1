"""Every recipe is trained, evaluated and shown by the real command, on tiny data."""

import csv
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dwarf_cxr import cli
from dwarf_cxr.config import differences, load_config, save_config, with_overrides
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError, DataError, TrainingError
from dwarf_cxr.files import read_json, sha256_of, write_json
from dwarf_cxr.methods import find_method
from dwarf_cxr.models.checkpoint import save_model
from dwarf_cxr.models.outputs import Origin
from dwarf_cxr.models.vlm import build_classifier
from dwarf_cxr.reproduce.command import places_of, reproduce
from dwarf_cxr.reproduce.plan import Choices, PlannedRow, plan_rows
from dwarf_cxr.reproduce.recipes import RECIPES, find_recipe
from dwarf_cxr.reproduce.results import read_results
from dwarf_cxr.reproduce.scales import find_scale
from dwarf_cxr.reproduce.subsets import annotated_cases
from dwarf_cxr.reproduce.teaching import teach_if_missing
from dwarf_cxr.reproduce.trainings import is_evaluated, is_finished
from dwarf_cxr.training.run import make_config
from tests.tiny import FINDINGS, SIZE, WORDS, write_bert, write_data, write_vit

TINY_MODEL = ("width=16", "layers=1", "attention_heads=2", "feedforward=24")

SENTENCES = {
    "Mass": "There is a focal opacity in the right middle lung.",
    "Effusion": "Patchy consolidation of the left upper lobe.",
    "Nodule": "Hazy infiltrate at the right base.",
}
"""Mass, Effusion and Nodule as a report says them."""


class Place:
    """Tiny encoders and data, and one OUT for all tables, so that shared rows are trained once."""

    def __init__(self, folder: Path) -> None:
        self.data, self.out = folder / "data", folder / "out"
        write_data(self.data, train=17)
        self.other = folder / "other"
        write_data(self.other, seed=3, train=15)
        # other people, in another set
        dataset = read_json(self.other / "dataset.json")
        write_json(self.other / "dataset.json", dataset | {"name": "else", "patients_of": "else"})
        vit, bert = write_vit(folder / "vit"), write_bert(folder / "bert", WORDS)
        encoders = (f"image_encoder={vit}", f"text_encoder={bert}")
        self.reported = folder / "reported"
        write_data(self.reported, seed=6, train=15, texts=True, sentences=SENTENCES)
        self.assignments = (*encoders, "frozen_layers=0", "map_size=8", "accelerator=cpu")

    def words(self, table: str, *more: str) -> list[str]:
        words = ["reproduce", table, "--data", str(self.data), "--out", str(self.out)]
        for assignment in self.related if table == "related" else self.assignments:
            words += ["--set", assignment]
        if table == "related":
            words += ["--reports", str(self.reported)]
        return [*words, "--tiny", *more]

    @property
    def related(self) -> list[str]:
        """The same encoders for the prompted networks alone: the others are convolutional."""
        return [
            one if one == "accelerator=cpu" else f"vision-language.{one}"
            for one in self.assignments
        ]

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


def planned(place: Place, table: str, out: Path, **words) -> dict[str, PlannedRow]:
    (where,) = places_of([place.data], out)
    choices = Choices(
        **{
            "scale": find_scale("tiny"),
            "seeds": (0,),
            "assignments": place.assignments,
            **words,
        }
    )
    return {row.name: row for row in plan_rows(find_recipe(table), where, choices)}


def records(place: Place, table: str) -> list[dict[str, str]]:
    with (place.out / f"{table}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


LEFT_OUT = {"kad", "devide"}
"""Zero-shot rows, which need --init."""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_recipe_runs(place, recipe):
    more = ["--data", str(place.other)] if recipe.name == "transfer" else []
    shown = place.run(recipe.name, *more)
    assert f"## {recipe.title}" in shown
    rows = [row for row in records(place, recipe.name) if row["protocol"] == "test"]
    page = (place.out / f"{recipe.name}.html").read_text(encoding="utf-8")
    names = {row["row"] for row in rows}
    expected = {row.name for row in recipe.rows} - LEFT_OUT
    most = annotated_cases(PreparedData.open(place.data), FINDINGS)
    few = {name: re.search(r"-cases-(\d+)$", name) for name in expected}
    expected -= {name for name, match in few.items() if match and int(match[1]) >= most}
    assert {re.sub(r"(?<!-cases)-1$", "", name) for name in names} == expected
    for name in names:
        metrics = json.loads(
            (place.out / "runs" / f"{name}-0" / "eval-test" / "metrics.json").read_text()
        )
        own = next(row for row in rows if row["row"] == name and row["metric"] == "auc")
        assert float(own["value"]) == pytest.approx(metrics["macro"]["auc"]["value"])
        assert name in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="http', page)


def test_zero_shot_rows_ask_the_given_weights_and_the_others_start_from_them(place, tmp_path):
    settings = with_overrides(find_method("kad").settings, None, TINY_MODEL)
    words = [one for one in place.assignments if "encoder=" in one or "frozen" in one]
    model = with_overrides(settings, None, words).model
    foreign = build_classifier(model, ("Mass", "Nodule"), SIZE, seed=4)
    foreign.origin = Origin("kad", "best_valid.pt", "a" * 64)
    save_model(foreign, tmp_path / "foreign")
    shown = direct(
        place,
        "table1",
        tmp_path / "out",
        init=tmp_path / "foreign",
        assignments=("accelerator=cpu",),
        only=["kad", "devide", "dwarf"],
        seeds=[0, 1],
    )
    assert "KAD, zero-shot, 3 findings (paper: Table 1, ChestX-Det" in shown
    runs = tmp_path / "out" / "runs"
    assert {run.name for run in runs.iterdir()} == {"kad-0", "devide-0", "dwarf-0", "dwarf-1"}
    for run in runs.iterdir():
        config = load_config(run / "config.yaml")
        assert config.init == str(tmp_path / "foreign")
        assert config.settings.model.width == 16
    again = direct(
        place,
        "table1",
        tmp_path / "out",
        init=tmp_path / "foreign",
        assignments=("accelerator=cpu",),
        only=["kad", "devide", "dwarf"],
        seeds=[0, 1],
        print_only=True,
    )
    assert again == shown


def test_without_weights_the_zero_shot_rows_are_left_out_and_it_is_said(place):
    assert "give the weights that they ask with --init" in place.run("table1", "--print-only")


def test_teachers_are_made_once_and_shown_beside_the_slides(place):
    shown = place.run("teachers")
    made = (place.out / "pseudo" / "dataset.json").stat().st_mtime_ns
    shown = place.run("table3")
    assert (place.out / "pseudo" / "dataset.json").stat().st_mtime_ns == made
    assert "paper, one model: AUC 0.847, Dice 0.317" in shown
    with (place.out / "pseudo" / "teachers.csv").open(newline="") as stream:
        quality = {row["finding"]: row["val_dice"] for row in csv.DictReader(stream)}
    said = {row["row"]: row for row in records(place, "teachers") if row["protocol"] == "teacher"}
    assert {name: row["value"] for name, row in said.items()} == quality
    assert said["Effusion"]["paper"] == "0.3525"
    for run, regions in (
        ("dwarf-pseudo-0", "pseudo"),
        ("dwarf-both-0", "both"),
        ("dwarf-0", "expert"),
    ):
        config = load_config(place.out / "runs" / run / "config.yaml")
        assert config.settings.objective.regions == regions
    scale = find_scale("tiny").teachers
    (where,) = places_of([place.data], place.out)
    with pytest.raises(ConfigError, match="folds: 2 -> 3"):
        teach_if_missing(where, replace(scale, folds=3), quiet)


def test_rows_on_teachers_regions_wait_for_the_teachers(place, tmp_path):
    direct(place, "prompts", tmp_path, only=["dwarf"])
    shown = direct(place, "table3", tmp_path, print_only=True)
    assert "No teachers yet" in shown
    assert "Not trained or not evaluated yet: gain-0." in shown


def test_transfer_is_a_matrix(place):
    shown = place.run("transfer", "--data", str(place.other))
    found = records(place, "transfer")
    for data, runs, there in (
        (place.data, "runs", "else"),
        (place.other, "runs/other", "tiny"),
    ):
        for name in ("gain", "dwarf"):
            own = json.loads((place.out / runs / f"{name}-0/eval-test/metrics.json").read_text())
            elsewhere = place.out / runs / f"{name}-0"
            (folder,) = elsewhere.glob("eval-test-on-*")
            other = json.loads((folder / "metrics.json").read_text())
            assert own["protocol"]["data"]["fingerprint"] == PreparedData.open(data).fingerprint
            assert other["protocol"]["data"] != own["protocol"]["data"]
            for protocol, metrics in (("test", own), (f"test on {there}", other)):
                value = metrics["macro"]["auc"]["value"]
                assert any(
                    row["row"] == name
                    and row["protocol"] == protocol
                    and row["metric"] == "auc"
                    and float(row["value"]) == pytest.approx(value)
                    for row in found
                )
    assert shown.count("(3 findings) in-domain") == 8


def test_transfer_needs_two_data_sets_that_share_something(place, tmp_path):
    with pytest.raises(ConfigError, match="two data sets at least"):
        direct(place, "transfer", tmp_path)
    with pytest.raises(ConfigError, match="give each once"):
        reproduce(
            "transfer",
            [place.data, place.data],
            tmp_path,
            scale="tiny",
            command="",
            report=quiet,
        )


def test_transfer_to_the_same_patients_is_refused_before_training(place, tmp_path):
    write_data(tmp_path / "again", seed=9, train=12)
    with pytest.raises(DataError, match="4 patients of its test"):
        reproduce(
            "transfer",
            [place.data, tmp_path / "again"],
            tmp_path / "out",
            scale="tiny",
            assignments=place.assignments,
            command="",
            report=quiet,
        )
    assert not (tmp_path / "out").exists()


def test_few_shot_rows_have_few_cases(place):
    place.run("few-shot")
    rows = planned(place, "few-shot", place.out)
    for cases in (1, 2, 4):
        for name in ("gain", "dwarf", "dwarf-prior"):
            (training,) = rows[f"{name}-cases-{cases}"].trainings
            assert training.config.settings.objective.region_cases == cases
    most = annotated_cases(PreparedData.open(place.data), FINDINGS)
    assert f"dwarf-cases-{most}" not in rows


def test_every_command_of_the_page_makes_the_same_configuration(place):
    for row in planned(place, "table4", place.out, seeds=(0, 3)).values():
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


def test_report_attention_starts_from_the_detector_of_its_seed(place):
    shown = place.run("related")
    config = load_config(place.out / "runs" / "report-attention-0" / "config.yaml")
    detector = place.out / "runs" / "retinanet-0"
    assert config.init == str(detector)
    assert config.init_sha256 == sha256_of(detector / "model" / "model.safetensors")
    assert config.reports == (str(place.reported),)
    assert f"--init {detector} --reports {place.reported}" in (
        place.out / "related.html"
    ).read_text(encoding="utf-8")
    metrics = {
        name: read_json(place.out / "runs" / f"{name}-0" / "eval-test" / "metrics.json")
        for name in ("retinanet", "report-attention", "ham")
    }
    found = {(row["row"], row["protocol"], row["metric"]): row for row in records(place, "related")}
    for name in ("retinanet", "report-attention"):
        for key in ("recall_25", "ap_50", "image_hit_75"):
            entry = metrics[name]["boxes"]["macro"][key]
            row = found[name, "test", key]
            assert float(row["value"]) == pytest.approx(entry["value"])
            # the same draws of the same patients
            assert float(row["low"]) == pytest.approx(entry["low"])
            assert float(row["high"]) == pytest.approx(entry["high"])
        assert ("ham", "test", "recall_25") not in found
    lead = float(found["report-attention", "difference", "recall_25"]["value"])
    recall = [
        metrics[name]["boxes"]["macro"]["recall_25"]["value"] for name in metrics if name != "ham"
    ]
    assert lead == pytest.approx(recall[1] - recall[0])
    ham = metrics["ham"]["macro"]["t_iou"]["value"]
    assert float(found["ham", "test", "t_iou"]["value"]) == pytest.approx(ham)
    assert "Boxes of the detectors" in shown


def test_without_reports_their_row_is_left_out_and_with_reports_it_waits(place, tmp_path):
    words = {"assignments": place.related, "only": ["class-attention", "report-attention"]}
    shown = direct(place, "related", tmp_path, **words)
    assert "report-attention is left out: give films with reports" in shown
    shown = direct(place, "related", tmp_path, reports=[place.reported], **words)
    assert "report-attention waits for finished trainings of retinanet" in shown
    alone = {**words, "only": ["report-attention"]}
    with pytest.raises(
        ConfigError, match=r"--only report-attention: .* with --reports DATA"
    ) as none:
        direct(place, "related", tmp_path, **alone)
    assert "print-only" not in str(none.value)
    with pytest.raises(ConfigError, match="or with retinanet in it too"):
        direct(place, "related", tmp_path, reports=[place.reported], **alone)
    with pytest.raises(ConfigError, match="prompts has no such row; related has"):
        direct(place, "prompts", tmp_path, reports=[place.reported])


def test_a_setting_is_for_the_rows_that_have_it(place, tmp_path):
    words = (
        *place.related,
        "ham.width=24",
        "class-attention.entropy_weight=0.3",
        "output_stride=8",
        "epochs=3",
    )
    rows = planned(place, "related", tmp_path, assignments=words)
    named = {name: row.trainings[0].config.settings for name, row in rows.items()}
    assert named["ham"].model.width == named["ham-half"].model.width == 24
    assert named["class-attention"].model.width == 16
    assert named["ham"].model.output_stride == 8
    assert named["class-attention"].objective.entropy_weight == 0.3
    assert named["class-attention-plain"].objective.entropy_weight == 0
    assert named["dwarf"].model.image_encoder.endswith("vit")
    assert named["retinanet"].model.image_encoder == "efficientnet-lite0"
    assert {one.training.epochs for one in named.values()} == {3}


def test_the_starter_scale_is_plain_training_with_the_test_split_watched(place):
    (row,) = planned(
        place,
        "fig3",
        place.out,
        scale=find_scale("starter"),
        seeds=(2,),
        assignments=("precision=bf16-mixed",),
        only=("dwarf-long",),
    ).values()
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
    rows = planned(place, "prompts", tmp_path, assignments=(*place.assignments, "epochs=2"))
    for row in rows.values():
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
        ({"assignments": ["output_stride=8"]}, "unknown setting 'output_stride'"),
        ({"assignments": ["ham.width=8"]}, "prompts has no ham network"),
    ],
)
def test_bad_words_are_refused(place, tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        direct(place, "prompts", tmp_path, **words)


@pytest.mark.parametrize(
    "words", [{"only": ["nobody"]}, {"assignments": ["no=2"]}], ids=["only", "setting"]
)
def test_bad_words_are_refused_before_the_teachers_work(place, tmp_path, words):
    with pytest.raises(ConfigError):
        direct(place, "table3", tmp_path / "out", **words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("table", ["table2", "teachers", "transfer"])
def test_data_without_a_split_are_refused_before_any_work(
    place, tmp_path, monkeypatch, split, table
):
    indices = PreparedData.indices
    monkeypatch.setattr(
        PreparedData,
        "indices",
        lambda self, wanted: indices(self, wanted)[: 99 * (wanted != split)],
    )
    with pytest.raises(DataError, match=f"no image is in the {split} split"):
        reproduce(
            table,
            [place.data, place.other],
            tmp_path / "out",
            scale="tiny",
            assignments=place.assignments,
            command="",
            report=quiet,
        )
    assert not (tmp_path / "out").exists()


def test_seeds_that_are_no_numbers_are_wrong_usage(place):
    result = CliRunner().invoke(cli.app, place.words("prompts", "--seeds", "0,x"))
    assert result.exit_code == 2


def test_a_row_keeps_what_it_is_about(place, tmp_path):
    words = (*place.assignments, "fp_weight=3", "epochs=5")
    rows = planned(place, "ablations", tmp_path, assignments=words)
    named = {name: row.trainings[0].config.settings for name, row in rows.items()}
    assert named["dwarf-plain-dice"].objective.fp_weight == 1
    assert named["dwarf"].objective.fp_weight == 3
    assert {each.training.epochs for each in named.values()} == {5}


def test_several_data_sets_have_a_block_each(place):
    shown = place.run("prompts", "--data", str(place.other), "--only", "dwarf")
    run = load_config(place.out / "runs" / "other" / "dwarf-0" / "config.yaml")
    assert run.data_fingerprint == PreparedData.open(place.other).fingerprint
    assert [line for line in shown.splitlines() if line.startswith("### ")] == [
        "### tiny",
        "### else",
    ]


def test_seeds_are_averaged(place, tmp_path):
    direct(place, "prompts", tmp_path, only=["dwarf"], seeds=[0, 1])
    rows = list(planned(place, "prompts", tmp_path, seeds=(0, 1), only=("dwarf",)).values())
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
