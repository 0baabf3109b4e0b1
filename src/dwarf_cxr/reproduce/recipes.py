"""The paper's tables and figures: which trainings each compares, and what was published for them.

A row is one training, whatever table it stands in: rows of the same name are trained once. Numbers
are shares, not percents. Where the paper and its slides contradict each other, the number taken is
the one that docs/methods.md names; `note` says what the other text has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dwarf_cxr.reporting.metrics import (
    Metric,
)
from dwarf_cxr.reproduce.metrics import (
    METRICS,
    RELATED_METRICS,
)
from dwarf_cxr.reproduce.subsets import Subset


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
    against: tuple[str, ...] = ()
    """The rows that it is compared with, in the same draws of patients."""
    with_pseudo: bool = False
    """Trained on OUT/pseudo, the data with the regions that `dwarf teachers` draws."""
    start: str | None = None
    """The row whose run of the same seed it starts from; it also needs reports."""
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
    columns: tuple[Metric, ...] = METRICS
    """Of the tables of results and differences."""


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

TABLE_1 = Recipe(
    name="table1",
    title="Table 1: DWARF and other vision-language models",
    question="Is DWARF better than zero-shot models, labels alone and GAIN?",
    rows=(
        Row(
            "kad",
            "KAD, zero-shot",
            "kad",
            against=("gain",),
            published=(
                Published(
                    "Table 1",
                    Numbers(auc=0.7381, f1=0.4004, mcc=0.3184, dice=0.1389),
                    note="slides: MCC .3148",
                ),
                Published(
                    "Table 1, F1 and MCC of the slides",
                    Numbers(auc=0.7422, f1=0.4152, mcc=0.3153, dice=0.1159),
                    data="CheXlocalize",
                    note="Table 1 has F1 .5801 and MCC .4153, shifted columns; slides: AUC .7222",
                ),
                Published(
                    "Table 1",
                    Numbers(auc=0.7319, f1=0.4022, mcc=0.3078, dice=0.0706),
                    data="VinDr-CXR",
                    note="slides: Dice .0719",
                ),
            ),
        ),
        Row(
            "devide",
            "DeViDe (our reading), zero-shot",
            "devide",
            against=("gain",),
            published=(
                Published(
                    "Table 1",
                    Numbers(auc=0.7424, f1=0.4246, mcc=0.3429, dice=0.1366),
                    note="slides: F1 .4266",
                ),
                Published(
                    "Table 1, MCC of the slides",
                    Numbers(auc=0.7826, f1=0.4166, mcc=0.3079, dice=0.1193),
                    data="CheXlocalize",
                    note="Table 1 has MCC .5983, which the slides have as Dice; slides: AUC .7226",
                ),
                Published(
                    "Table 1",
                    Numbers(auc=0.7292, f1=0.4128, mcc=0.3143, dice=0.0719),
                    data="VinDr-CXR",
                    note="slides: F1 .4101, MCC .2798, Dice .0706",
                ),
            ),
        ),
        replace(CLASSIFIER, against=("gain",)),
        replace(
            GAIN,
            published=(
                replace(_GAIN_13, source="Table 1", note="slides: F1 .5897, MCC .6265, Dice .1309"),
                Published(
                    "Table 1",
                    Numbers(auc=0.8364, f1=0.6286, mcc=0.5018, dice=0.1191),
                    data="CheXlocalize",
                    note="slides: AUC .8444, F1 .6268, MCC .5882",
                ),
                Published(
                    "Table 1",
                    Numbers(auc=0.7851, f1=0.4520, mcc=0.3648, dice=0.0723),
                    data="VinDr-CXR",
                    note="slides: F1 .4577, MCC .3591",
                ),
            ),
        ),
        replace(
            DWARF,
            against=("gain",),
            published=(
                replace(_DWARF_13, source="Table 1", note="slides: F1 .5913"),
                Published(
                    "Table 1",
                    Numbers(auc=0.8493, f1=0.6344, mcc=0.5079, dice=0.1340),
                    data="CheXlocalize",
                    note="slides: AUC .8483, MCC .6314",
                ),
                Published(
                    "Table 1",
                    Numbers(auc=0.8001, f1=0.4705, mcc=0.3955, dice=0.1021),
                    data="VinDr-CXR",
                ),
            ),
        ),
    ),
    cautions=(
        "The zero-shot rows ask the weights that --init gives; the trained rows start from them "
        "too, as the paper's do. Without --init they start from encoders that know no radiograph.",
    ),
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
            against=("gain",),
            published=(
                Published(
                    "Table 2", Numbers(auc=0.8871, dice=0.4147), note="the paper's text: Dice .3854"
                ),
            ),
        ),
        replace(GAIN, subset=7, published=(_GAIN_7,)),
        replace(DWARF, subset=7, against=("gain",), published=(_DWARF_7,)),
        replace(GAIN, published=(_GAIN_13,)),
        replace(DWARF, against=("gain",), published=(_DWARF_13,)),
    ),
    cautions=(
        "With other findings the task changes: rows with different numbers of findings are not "
        "compared with each other, only DWARF with GAIN for each.",
    ),
)

PSEUDO = Row(
    "dwarf-pseudo",
    "DWARF, teachers' regions",
    "dwarf",
    ("regions=pseudo",),
    subset=7,
    against=("gain", "dwarf"),
    with_pseudo=True,
    published=(
        Published(
            "slides, teachers",
            Numbers(auc=0.8757, dice=0.3694),
            one_model=Numbers(auc=0.8473, dice=0.3171),
            note="Table 3: the same Dice, and AUC .8473 alone",
        ),
    ),
)
_TABLE_3_ROWS = (
    replace(
        GAIN,
        subset=7,
        published=(replace(_GAIN_7, note="Table 3 repeats the row for 4 findings: .8680, .1438"),),
    ),
    PSEUDO,
    replace(
        DWARF,
        title="DWARF, clinicians' regions",
        subset=7,
        against=("gain",),
        published=(
            Published(
                "slides, teachers",
                Numbers(auc=0.8766, dice=0.3911),
                one_model=Numbers(auc=0.8578, dice=0.3856),
                note="Table 3: the same Dice, and AUC .8717",
            ),
        ),
    ),
    Row(
        "dwarf-both",
        "DWARF, teachers' regions where no clinician drew",
        "dwarf",
        ("regions=both",),
        subset=7,
        against=("dwarf",),
        with_pseudo=True,
    ),
)
_OF_TEACHERS = (
    "Teachers are cross-fitted: a film's pseudo regions are drawn by a net that has seen no film "
    "of the patient. They are drawn where the label says that the finding is present, so that "
    "there can be more films with a pseudo region than with a clinician's.",
    "The teachers are trained on the clinicians' regions of the same data: pseudo regions replace "
    "their use in DWARF, not their making.",
)

TABLE_3 = Recipe(
    name="table3",
    title="Table 3: teachers' regions instead of clinicians'",
    question="Do regions that segmentation networks draw serve as well as clinicians'?",
    rows=_TABLE_3_ROWS,
    cautions=_OF_TEACHERS,
)

TEACHERS = Recipe(
    name="teachers",
    title="Segmentation teachers (slides)",
    question="How well do the teachers draw each finding, and what comes of learning from them?",
    rows=_TABLE_3_ROWS,
    cautions=_OF_TEACHERS,
)

TEACHER_DICE: Mapping[str, float] = {
    "Atelectasis": 0.3031,
    "Calcification": 0.0073,
    "Cardiomegaly": 0.8342,
    "Consolidation": 0.4288,
    "Diffuse Nodule": 0.4441,
    "Effusion": 0.3525,
    "Emphysema": 0.4355,
    "Fibrosis": 0.1621,
    "Fracture": 0.0755,
    "Mass": 0.4583,
    "Nodule": 0.0355,
    "Pleural Thickening": 0.1355,
    "Pneumothorax": 0.0707,
}
"""The slides' Dice of the teachers on ChestX-Det."""

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
            against=("direct",),
            published=(Published("Table 4", Numbers(auc=0.8732, dice=0.3559)),),
        ),
        replace(RANDOM_HEADS, subset=7, against=("dwarf",)),
        replace(CONV1_HEADS, subset=7, against=("dwarf",)),
        replace(CONV3_HEADS, subset=7, against=("dwarf",)),
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
        replace(GAIN_LONG, against=("gain",)),
        replace(
            DWARF,
            against=("gain",),
            published=(Published("slides, scalability", Numbers(auc=0.8157, dice=0.1805)),),
        ),
        replace(
            DWARF_LONG,
            against=("dwarf",),
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
            against=("dwarf",),
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
            against=("dwarf",),
        ),
        Row("dwarf-fp4", "w_FP = 4", "dwarf", ("fp_weight=4",), against=("dwarf",)),
        Row("dwarf-fp8", "w_FP = 8", "dwarf", ("fp_weight=8",), against=("dwarf",)),
        Row("dwarf-seg3", "seg_weight = .3", "dwarf", ("seg_weight=0.3",), against=("dwarf",)),
        Row("dwarf-seg7", "seg_weight = .7", "dwarf", ("seg_weight=0.7",), against=("dwarf",)),
        Row("dwarf-logit", "map space: logit", "dwarf", ("map_space=logit",), against=("dwarf",)),
        Row("dwarf-max", "map space: max", "dwarf", ("map_space=max",), against=("dwarf",)),
        replace(DIRECT, title="no heads (direct)", against=("dwarf",)),
        replace(RANDOM_HEADS, against=("dwarf",)),
        replace(CONV1_HEADS, against=("dwarf",)),
        replace(CONV3_HEADS, against=("dwarf",)),
        replace(DWARF_PRIOR, against=("dwarf",)),
        Row(
            "dwarf-joint-queries",
            "query context: joint",
            "dwarf",
            ("query_context=joint",),
            against=("dwarf",),
        ),
        Row(
            "dwarf-cyclic",
            "one finding per epoch (the paper)",
            "dwarf",
            ("schedule=cyclic",),
            against=("dwarf",),
        ),
        Row(
            "dwarf-interleaved",
            "one finding per step",
            "dwarf",
            ("schedule=interleaved",),
            against=("dwarf",),
        ),
        replace(GAIN, against=("dwarf",)),
        replace(CLASSIFIER, against=("dwarf",)),
    ),
    cautions=(
        "DWARF with its defaults has w_FP = 2, seg_weight = .5, map space relative, isolated "
        "queries and, but at the paper's scale, every finding in every step.",
        "One finding per epoch or step trains each finding less often in the same number of "
        "epochs.",
    ),
)

FEW_SHOT_CASES = (1, 2, 4, 8, 16, 32, 64)
"""Those that a data set has fewer annotated cases of are left out."""


def _few(row: Row, cases: int, against: tuple[str, ...] = ()) -> Row:
    return replace(
        row,
        name=f"{row.name}-cases-{cases}",
        title=f"{row.title}, {cases} annotated case{'' if cases == 1 else 's'} per finding",
        changes=(*row.changes, f"region_cases={cases}"),
        against=against,
    )


FEW_SHOT = Recipe(
    name="few-shot",
    title="Few annotated cases (announced by the paper, not shown)",
    question="How many annotated cases per finding do the maps need, when all labels are there?",
    rows=(
        *(
            row
            for cases in FEW_SHOT_CASES
            for row in (
                _few(GAIN, cases),
                _few(DWARF, cases, (f"gain-cases-{cases}",)),
                _few(DWARF_PRIOR, cases, (f"gain-cases-{cases}",)),
            )
        ),
        GAIN,
        replace(DWARF, against=("gain",)),
        replace(DWARF_PRIOR, against=("gain",)),
    ),
    cautions=(
        "Regions are withheld on training films alone: epochs and map thresholds are chosen on "
        "all regions of the validation split, so that the numbers are those of few cases to train "
        "on and more to choose by.",
        "The train prior of a row is made of its own few cases. Each seed draws its own cases.",
    ),
)

TRANSFER = Recipe(
    name="transfer",
    title="Transfer to other data sets (announced by the paper, not shown)",
    question="What is left on a data set that a model was not trained on?",
    rows=(GAIN, replace(DWARF, against=("gain",))),
    cautions=(
        "On another data set only the findings that both sets have are judged, so that a row's "
        "numbers are over different findings; how many stands with each. Thresholds and train "
        "prior are those of the training data.",
    ),
)


def _sriker(auc: float) -> tuple[Published, ...]:
    source = "Sriker et al., ISBI 2022, mean AUC of 14 findings"
    return (Published(source, Numbers(auc=auc), data="NIH ChestX-ray14"),)


RELATED = Recipe(
    name="related",
    title="Related systems, on the same films",
    question="How do class-based attention, HAM, a detector and its attention to reports compare "
    "with DWARF, GAIN and labels alone, and each with the baselines of its own paper?",
    rows=(
        CLASSIFIER,
        replace(GAIN, against=("classifier",)),
        replace(DWARF, against=("gain",)),
        Row(
            "class-attention-plain",
            "Convolutional network, no attention",
            "class-attention",
            ("attention=none", "entropy_weight=0"),
            against=("classifier",),
            published=_sriker(0.794),
        ),
        Row(
            "class-attention-image",
            "One attention for all findings",
            "class-attention",
            ("attention=image", "entropy_weight=0"),
            against=("class-attention-plain",),
            published=_sriker(0.812),
        ),
        Row(
            "class-attention",
            "Class-based attention",
            "class-attention",
            against=("class-attention-image", "class-attention-plain", "classifier"),
            published=_sriker(0.823),
        ),
        Row(
            "ham-labels",
            "HAM, labels only",
            "ham",
            ("box_weight=0",),
            against=("classifier",),
        ),
        Row(
            "ham-half",
            "HAM, regions of half of the films",
            "ham",
            ("region_share=0.5",),
            against=("ham-labels",),
        ),
        Row("ham", "HAM", "ham", against=("ham-labels", "ham-half", "gain")),
        Row("retinanet", "RetinaNet", "retinanet", against=("gain",)),
        Row(
            "report-attention",
            "Attention to reports over RetinaNet's regions",
            "report-attention",
            against=("retinanet",),
            start="retinanet",
        ),
    ),
    cautions=(
        "The rows are given different supervision: labels alone (classifier, class-attention, "
        "HAM without regions), labels and regions (GAIN, DWARF, HAM), regions and absent labels "
        "(RetinaNet), and the reports of --reports on top of it. Networks differ too: GAIN, DWARF "
        "and the classifier are vision-language, the others convolutional.",
        "RetinaNet's map is made of its boxes, and its score is that of its best box. A box of "
        "report-attention scores its attention, as a share of its film's largest, times the score "
        "that RetinaNet gives it.",
        "Sriker et al. train on all of NIH ChestX-ray14 at its full number of findings; which "
        "epoch their numbers are of is not said.",
    ),
    columns=RELATED_METRICS,
)

RECIPES: tuple[Recipe, ...] = (
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    FIGURE_3,
    PROMPTS,
    TEACHERS,
    TRANSFER,
    FEW_SHOT,
    ABLATIONS,
    RELATED,
)


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
