"""The paper's tables and figures: which trainings each compares, and what was published for them.

A row is one training, whatever table it stands in: rows of the same name are trained once. Numbers
are shares, not percents. Where the paper and its slides contradict each other, the number taken is
the one that docs/methods.md names; `note` says what the other text has.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dwarf_cxr.reproduce.subsets import Subset

Regions = Literal["expert", "pseudo", "both"]


@dataclass(frozen=True)
class Numbers:
    """Published values; None where the text gives none."""

    auc: float | None = None
    f1: float | None = None
    mcc: float | None = None
    dice: float | None = None


@dataclass(frozen=True)
class Published:
    """What the authors report for a row, on their data."""

    source: str
    best: Numbers
    """Best over epochs, each number by itself ("Max")."""
    one_model: Numbers = Numbers()
    """Two numbers of one and the same model, where the text tells them from the best."""
    data: str = "ChestX-Det"
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One training of a table.

    Its command is `dwarf train METHOD` with a `--set` for each of `changes`.
    """

    name: str
    """Runs lie in OUT/runs/NAME-SEED, or NAME-N-SEED with fewer findings than all."""
    title: str
    method: str
    changes: tuple[str, ...] = ()
    subset: Subset = 13
    epochs: int = 1
    """Times the epochs of the scale."""
    against: str | None = None
    """The row that it is compared with, in the same draws of patients."""
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A table or figure of the paper."""

    name: str
    title: str
    question: str
    """What the table is asked."""
    rows: tuple[Row, ...]
    cautions: tuple[str, ...] = field(default=())
    """What a reader must know of the comparison."""


CLASSIFIER = Row("classifier", "Labels only", "classifier")
GAIN = Row("gain", "GAIN", "gain")
DWARF = Row("dwarf", "DWARF", "dwarf")
DIRECT = Row("direct", "Directly optimised", "direct")
DWARF_PRIOR = Row("dwarf-prior", "Prior plus evidence (ours)", "dwarf-prior")
RANDOM_HEADS = Row("dwarf-random-heads", "Heads, random start", "dwarf", ("head=linear-random",))
CONV1_HEADS = Row("dwarf-conv1", "Heads, 1×1 convolution", "dwarf", ("head=conv1",))
CONV3_HEADS = Row("dwarf-conv3", "Heads, 3×3 convolution", "dwarf", ("head=conv3",))
DESCRIPTION = Row("dwarf-description", "Finding description", "dwarf", ("prompts=description",))
GAIN_LONG = Row("gain-long", "GAIN, twice the epochs", "gain", epochs=2)
DWARF_LONG = Row("dwarf-long", "DWARF, twice the epochs", "dwarf", epochs=2)

_GAIN_13 = Published(
    "Table 2", Numbers(auc=0.8090, f1=0.4857, mcc=0.4265, dice=0.1390), note="slides: Dice .1309"
)
_DWARF_13 = Published(
    "Table 2",
    Numbers(auc=0.8194, f1=0.5373, mcc=0.4987, dice=0.1824),
    note="mean of several trainings; slides, one training: AUC .8157, Dice .1805",
)
_GAIN_7 = Published("Table 2", Numbers(auc=0.8510, dice=0.1903), note="slides: AUC .8519")
_DWARF_7 = Published(
    "Table 2",
    Numbers(auc=0.8717, f1=0.6017, mcc=0.5201, dice=0.3911),
    note="slides: Dice .3559, the paper's text .3492",
)

TABLE_2 = Recipe(
    name="table2",
    title="Table 2: DWARF and GAIN with different numbers of findings",
    question="Does DWARF keep its lead over GAIN however many findings are trained?",
    rows=(
        replace(
            GAIN, subset=4, published=(Published("Table 2", Numbers(auc=0.8680, dice=0.1438)),)
        ),
        replace(
            DWARF,
            subset=4,
            against="gain",
            published=(
                Published(
                    "Table 2", Numbers(auc=0.8871, dice=0.4147), note="the paper's text: Dice .3854"
                ),
            ),
        ),
        replace(GAIN, subset=7, published=(_GAIN_7,)),
        replace(DWARF, subset=7, against="gain", published=(_DWARF_7,)),
        replace(GAIN, published=(_GAIN_13,)),
        replace(DWARF, against="gain", published=(_DWARF_13,)),
    ),
    cautions=(
        "With other findings the task changes: rows with different numbers of findings are not "
        "compared with each other, only DWARF with GAIN for each.",
    ),
)

TABLE_4 = Recipe(
    name="table4",
    title="Table 4: disease-specific heads",
    question="Do heads help over supervising the attention itself, and does their start matter?",
    rows=(
        replace(
            DIRECT, subset=7, published=(Published("Table 4", Numbers(auc=0.8663, dice=0.2288)),)
        ),
        replace(
            DWARF,
            title="Heads, identity start (DWARF)",
            subset=7,
            against="direct",
            published=(Published("Table 4", Numbers(auc=0.8732, dice=0.3559)),),
        ),
        replace(RANDOM_HEADS, subset=7, against="dwarf"),
        replace(CONV1_HEADS, subset=7, against="dwarf"),
        replace(CONV3_HEADS, subset=7, against="dwarf"),
    ),
    cautions=(
        "The paper's Table 4 names its columns AUC and Max Dice; its slides say Max AUC.",
        "Convolutions cannot mark a fixed place whatever the film shows: they are here to tell "
        "what the heads' knowledge of positions is worth.",
    ),
)

FIGURE_3 = Recipe(
    name="fig3",
    title="Figure 3: longer training",
    question="Does DWARF gain from twice the epochs, and does GAIN overfit?",
    rows=(
        replace(GAIN, published=(_GAIN_13,)),
        replace(GAIN_LONG, against="gain"),
        replace(
            DWARF,
            against="gain",
            published=(Published("slides, scalability", Numbers(auc=0.8157, dice=0.1805)),),
        ),
        replace(
            DWARF_LONG,
            against="dwarf",
            published=(
                Published(
                    "slides, scalability",
                    Numbers(auc=0.8231, dice=0.2302),
                    note="1,000 epochs instead of 500",
                ),
            ),
        ),
    ),
    cautions=(
        "Twice the epochs is a training of its own, whose learning rate falls over all of them, "
        "and no continuation of the short one.",
    ),
)

PROMPTS = Recipe(
    name="prompts",
    title="Prompts: a finding's name or its description",
    question="Does it matter whether a finding is asked for by its name or by a description?",
    rows=(
        replace(
            DWARF,
            title="Finding name",
            published=(Published("slides, prompts", Numbers(auc=0.8157, dice=0.1805)),),
        ),
        replace(
            DESCRIPTION,
            against="dwarf",
            published=(Published("slides, prompts", Numbers(auc=0.8125, dice=0.1769)),),
        ),
    ),
)

ABLATIONS = Recipe(
    name="ablations",
    title="Ablations: what the paper leaves open, and what it does not vary",
    question="Which of the settings that the paper does not give decide the result?",
    rows=(
        DWARF,
        Row(
            "dwarf-plain-dice",
            "w_FP = 1 (plain Dice)",
            "dwarf",
            ("fp_weight=1",),
            against="dwarf",
        ),
        Row("dwarf-fp4", "w_FP = 4", "dwarf", ("fp_weight=4",), against="dwarf"),
        Row("dwarf-fp8", "w_FP = 8", "dwarf", ("fp_weight=8",), against="dwarf"),
        Row("dwarf-seg3", "seg_weight = .3", "dwarf", ("seg_weight=0.3",), against="dwarf"),
        Row("dwarf-seg7", "seg_weight = .7", "dwarf", ("seg_weight=0.7",), against="dwarf"),
        Row("dwarf-logit", "map space: logit", "dwarf", ("map_space=logit",), against="dwarf"),
        Row("dwarf-max", "map space: max", "dwarf", ("map_space=max",), against="dwarf"),
        replace(DIRECT, title="no heads (direct)", against="dwarf"),
        replace(RANDOM_HEADS, against="dwarf"),
        replace(CONV1_HEADS, against="dwarf"),
        replace(CONV3_HEADS, against="dwarf"),
        replace(DWARF_PRIOR, against="dwarf"),
        Row(
            "dwarf-joint-queries",
            "query context: joint",
            "dwarf",
            ("query_context=joint",),
            against="dwarf",
        ),
        Row(
            "dwarf-cyclic",
            "one finding per epoch (the paper)",
            "dwarf",
            ("schedule=cyclic",),
            against="dwarf",
        ),
        Row(
            "dwarf-interleaved",
            "one finding per step",
            "dwarf",
            ("schedule=interleaved",),
            against="dwarf",
        ),
        replace(GAIN, against="dwarf"),
        replace(CLASSIFIER, against="dwarf"),
    ),
    cautions=(
        "DWARF with its defaults has w_FP = 2, seg_weight = .5, map space relative, isolated "
        "queries and, but at the paper's scale, every finding in every step.",
        "One finding per epoch or step trains each finding less often in the same number of "
        "epochs.",
    ),
)

RECIPES: tuple[Recipe, ...] = (TABLE_2, TABLE_4, FIGURE_3, PROMPTS, ABLATIONS)


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; `name` is one of theirs."""
    return next(recipe for recipe in RECIPES if recipe.name == name)


def published_for(row: Row, data_name: str) -> Published | None:
    """What was published for the row: on this data set, or else on ChestX-Det."""
    return next(
        (
            one
            for wanted in (data_name, "ChestX-Det")
            for one in row.published
            if one.data == wanted
        ),
        None,
    )


def rows_named(recipe: Recipe, names: Sequence[str]) -> tuple[Row, ...]:
    """The recipe's rows of these names."""
    return tuple(row for row in recipe.rows if row.name in names)
