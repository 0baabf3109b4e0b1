import dataclasses

import pytest

from dwarf_cxr.cli import PaperScale, PaperTable
from dwarf_cxr.config import with_overrides
from dwarf_cxr.findings import CHESTX_DET_7, CHESTX_DET_13
from dwarf_cxr.methods import find_method
from dwarf_cxr.reproduce.recipes import (
    RECIPES,
    TEACHER_DICE,
    Numbers,
    find_recipe,
    published_for,
)
from dwarf_cxr.reproduce.scales import SCALES, find_scale

EVERY_ROW = [(recipe, row) for recipe in RECIPES for row in recipe.rows]


def test_the_command_knows_every_recipe_and_scale():
    assert {table.value for table in PaperTable} == {recipe.name for recipe in RECIPES}
    assert {scale.value for scale in PaperScale} == {scale.name for scale in SCALES}


def test_rows_of_one_name_are_one_training():
    trainings = {}
    for _, row in EVERY_ROW:
        words = (row.method, row.changes, row.epochs, row.with_pseudo, row.start)
        assert trainings.setdefault(row.name, words) == words, row.name
    assert len(set(trainings.values())) == len(trainings), "two names for one training"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_baselines_are_rows_of_the_table_with_as_many_findings(recipe):
    for row in recipe.rows:
        for name in row.against:
            assert any(
                other.name == name and other.subset == row.subset for other in recipe.rows
            ), row.name
            assert row.name != name


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.name)
def test_every_row_is_a_valid_configuration_at_every_scale(scale):
    for _, row in EVERY_ROW:
        changes = (*scale.changes_for(row.method, 7), *row.changes)
        settings = with_overrides(find_method(row.method).settings, None, changes)
        # report-attention has a loop of its own, which watches nothing
        assert settings.training.watch_test == (row.method != "report-attention")


def test_the_papers_scale_is_the_papers():
    paper = find_scale("paper")
    for method, schedule in (("dwarf", "cyclic"), ("gain", "joint"), ("classifier", "joint")):
        settings = with_overrides(find_method(method).settings, None, paper.changes_for(method, 13))
        training = settings.training
        assert training.schedule == schedule
        assert training.lr == training.encoder_lr == 5e-5
        assert training.batch_size == 32
        assert training.evaluate_every == 13
        assert (training.rotate, training.shift, training.scale, training.intensity) == (0,) * 4
        assert settings.model.image_encoder == "vit-b16"
    assert paper.epochs == 500


def test_epochs_are_the_scales_but_for_the_loop_of_reports():
    starter, paper = find_scale("starter"), find_scale("paper")
    assert {starter.epochs_for(name) for name in ("dwarf", "ham", "retinanet")} == {12}
    own = find_method("report-attention").settings.training.epochs
    assert starter.epochs_for("report-attention") == own == 40
    assert (paper.epochs_for("ham"), paper.epochs_for("dwarf")) == (20, 500)


def test_every_related_system_stands_beside_the_baselines_of_its_paper():
    against = {row.name: row.against for row in find_recipe("related").rows}
    assert {"class-attention-image", "class-attention-plain"} <= set(against["class-attention"])
    assert {"ham-labels", "ham-half"} <= set(against["ham"])
    assert against["report-attention"] == ("retinanet",)
    published = {
        row.name: published_for(row, "NIH ChestX-ray14").best.auc
        for row in find_recipe("related").rows
        if row.published
    }
    assert published == {
        "class-attention": 0.823,
        "class-attention-image": 0.812,
        "class-attention-plain": 0.794,
    }


def test_published_numbers_are_shares():
    for recipe, row in EVERY_ROW:
        for published in row.published:
            for numbers in (published.best, published.one_model):
                for value in dataclasses.astuple(numbers):
                    assert value is None or 0 < value < 1, (recipe.name, row.name)
            assert published.best != Numbers()


PRINTED = {
    # percents, typed from the paper and its slides: AUC, F1, MCC, Dice
    ("table1", "kad", 13, "ChestX-Det"): (73.81, 40.04, 31.84, 13.89),
    ("table1", "kad", 13, "CheXlocalize"): (74.22, 41.52, 31.53, 11.59),
    ("table1", "kad", 13, "VinDr-CXR"): (73.19, 40.22, 30.78, 7.06),
    ("table1", "devide", 13, "ChestX-Det"): (74.24, 42.46, 34.29, 13.66),
    ("table1", "devide", 13, "CheXlocalize"): (78.26, 41.66, 30.79, 11.93),
    ("table1", "devide", 13, "VinDr-CXR"): (72.92, 41.28, 31.43, 7.19),
    ("table1", "gain", 13, "ChestX-Det"): (80.90, 48.57, 42.65, 13.90),
    ("table1", "gain", 13, "CheXlocalize"): (83.64, 62.86, 50.18, 11.91),
    ("table1", "gain", 13, "VinDr-CXR"): (78.51, 45.20, 36.48, 7.23),
    ("table1", "dwarf", 13, "ChestX-Det"): (81.94, 53.73, 49.87, 18.24),
    ("table1", "dwarf", 13, "CheXlocalize"): (84.93, 63.44, 50.79, 13.40),
    ("table1", "dwarf", 13, "VinDr-CXR"): (80.01, 47.05, 39.55, 10.21),
    ("table2", "gain", 4, "ChestX-Det"): (86.80, None, None, 14.38),
    ("table2", "gain", 7, "ChestX-Det"): (85.10, None, None, 19.03),
    ("table2", "gain", 13, "ChestX-Det"): (80.90, 48.57, 42.65, 13.90),
    ("table2", "dwarf", 4, "ChestX-Det"): (88.71, None, None, 41.47),
    ("table2", "dwarf", 7, "ChestX-Det"): (87.17, 60.17, 52.01, 39.11),
    ("table2", "dwarf", 13, "ChestX-Det"): (81.94, 53.73, 49.87, 18.24),
    ("table3", "gain", 7, "ChestX-Det"): (85.10, None, None, 19.03),
    ("table3", "dwarf-pseudo", 7, "ChestX-Det"): (87.57, None, None, 36.94),
    ("table3", "dwarf", 7, "ChestX-Det"): (87.66, None, None, 39.11),
    ("table4", "direct", 7, "ChestX-Det"): (86.63, None, None, 22.88),
    ("table4", "dwarf", 7, "ChestX-Det"): (87.32, None, None, 35.59),
    ("fig3", "gain", 13, "ChestX-Det"): (80.90, 48.57, 42.65, 13.90),
    ("fig3", "dwarf", 13, "ChestX-Det"): (81.57, None, None, 18.05),
    ("fig3", "dwarf-long", 13, "ChestX-Det"): (82.31, None, None, 23.02),
    ("prompts", "dwarf", 13, "ChestX-Det"): (81.57, None, None, 18.05),
    ("prompts", "dwarf-description", 13, "ChestX-Det"): (81.25, None, None, 17.69),
}
ONE_MODEL = {"dwarf-pseudo": (84.73, 31.71), "dwarf": (85.78, 38.56)}
"""Table 3's AUC (of the slides) and Dice."""
TEACHERS_PRINTED = (
    "Atelectasis 0.3031 Calcification 0.0073 Cardiomegaly 0.8342 Consolidation 0.4288 "
    "Diffuse_Nodule 0.4441 Effusion 0.3525 Emphysema 0.4355 Fibrosis 0.1621 Fracture 0.0755 "
    "Mass 0.4583 Nodule 0.0355 Pleural_Thickening 0.1355 Pneumothorax 0.0707"
)


def test_published_numbers_are_those_that_are_printed():
    found = {
        (recipe.name, row.name, row.subset, published.data): dataclasses.astuple(published.best)
        for recipe, row in EVERY_ROW
        for published in row.published
        if recipe.name not in ("teachers", "related")  # the rows of table3; other papers
    }
    assert found.keys() == PRINTED.keys()
    for place, numbers in PRINTED.items():
        shares = tuple(None if number is None else number / 100 for number in numbers)
        assert found[place] == pytest.approx(shares, abs=1e-9), place
    assert find_recipe("teachers").rows == find_recipe("table3").rows
    for row in find_recipe("table3").rows:
        for published in row.published:
            numbers = (published.one_model.auc, published.one_model.dice)
            shares = tuple(one / 100 for one in ONE_MODEL.get(row.name, ())) or (None, None)
            assert numbers == pytest.approx(shares, abs=1e-9), row.name


def test_the_teachers_are_those_of_the_slides():
    words = TEACHERS_PRINTED.split()
    printed = {
        name.replace("_", " "): float(dice)
        for name, dice in zip(words[::2], words[1::2], strict=True)
    }
    assert printed == TEACHER_DICE
    assert tuple(TEACHER_DICE) == CHESTX_DET_13
    # the slides' means, of 7 and of 13 findings
    assert sum(TEACHER_DICE[name] for name in CHESTX_DET_7) / 7 == pytest.approx(0.465, abs=5e-4)
    assert sum(TEACHER_DICE.values()) / 13 == pytest.approx(0.288, abs=5e-4)


def test_numbers_of_another_data_set_are_those_of_chestx_det():
    gain, dwarf = find_recipe("table2").rows[:2]
    assert published_for(dwarf, "NIH ChestX-ray14").data == "ChestX-Det"
    assert published_for(gain, "ChestX-Det").best == Numbers(auc=0.868, dice=0.1438)
