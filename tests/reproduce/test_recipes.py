import dataclasses

import pytest

from dwarf_cxr.cli import PaperScale, PaperTable
from dwarf_cxr.config import with_overrides
from dwarf_cxr.methods import find_method
from dwarf_cxr.reproduce.recipes import RECIPES, Numbers, find_recipe, published_for
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


def test_numbers_of_another_data_set_are_those_of_chestx_det():
    gain, dwarf = find_recipe("table2").rows[:2]
    assert published_for(dwarf, "NIH ChestX-ray14").data == "ChestX-Det"
    assert published_for(gain, "ChestX-Det").best == Numbers(auc=0.868, dice=0.1438)
