"""How large a reproduction is: the paper's trainings, those of the starter, or a minute's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dwarf_cxr.methods import find_method
from dwarf_cxr.models.initial import ARCHITECTURE
from dwarf_cxr.training.teachers import TeacherSettings


@dataclass(frozen=True)
class Scale:
    """What all rows of a table have in common; a row's own changes come after it."""

    name: str
    words: str
    epochs: int
    changes: tuple[str, ...]
    """Of every network that the training loop trains."""
    network_changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Those of a kind of network."""
    network_epochs: Mapping[str, int] = field(default_factory=dict)
    """Of the kinds that are not trained for `epochs`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    draws: int = 1000
    """Bootstrap draws over patients."""
    one_finding_per_epoch: tuple[str, ...] = ()
    """Methods that are trained by `schedule=cyclic`, one finding in each epoch."""
    evaluate_at_cycles: bool = False
    """Evaluate every time each finding had its epoch, instead of as `changes` say."""

    teachers: TeacherSettings = field(default_factory=TeacherSettings)

    def changes_for(self, method: str, findings: int, *, initial: bool = False) -> tuple[str, ...]:
        """The `--set` assignments of a row with this method and number of findings.

        With an `initial` model, without those that its weights fix.
        """
        kind = find_method(method).settings.model.kind
        of_network = self.network_changes.get(kind, ())
        if kind == "report-attention":
            # its loop is its own: short epochs on regions that were found once
            return of_network
        cyclic = ("schedule=cyclic",) if method in self.one_finding_per_epoch else ()
        at_cycles = self.evaluate_at_cycles and kind == "vision-language"
        cycles = (f"evaluate_every={findings}",) if at_cycles else ()
        own = [
            change
            for change in (*of_network, *self.changes)
            if not (initial and change.split("=")[0] in ARCHITECTURE)
        ]
        return (*own, *cycles, *cyclic)

    def epochs_for(self, method: str) -> int:
        """The epochs of a row with this method."""
        settings = find_method(method).settings
        kind = settings.model.kind
        if kind == "report-attention":
            return self.network_epochs.get(kind, settings.training.epochs)
        return self.network_epochs.get(kind, self.epochs)


PAPER = Scale(
    name="paper",
    words="as the paper states it: ViT-B/16, 224 px, AdamW at 5e-5, batches of 32, 500 epochs, one "
    "finding per epoch for DWARF. Give --set text_encoder=FOLDER (Med-KEBERT) and --set "
    "image_encoder=FOLDER for pretrained encoders: without them the ViT starts at random. Other "
    "networks: ResNet-50, HAM's output stride and widths of its code, its 20 epochs.",
    epochs=500,
    network_changes={
        "vision-language": (
            "image_encoder=vit-b16",
            "frozen_layers=0",
            "width=768",
            "layers=4",
            "feedforward=1024",
            "positions=false",
        ),
        "class-attention": ("image_encoder=resnet50",),
        "ham": ("image_encoder=resnet50", "output_stride=8", "width=512"),
        "retinanet": ("image_encoder=resnet50", "width=256", "depth=4"),
    },
    network_epochs={"class-attention": 20, "ham": 20, "retinanet": 20},
    changes=(
        "batch_size=32",
        "encoder_lr=5e-5",
        "lr=5e-5",
        "decay=constant",
        "warmup=0",
        # the paper states no augmentation and no weights of positives
        "rotate=0",
        "shift=0",
        "scale=0",
        "intensity=0",
        "positive_weight_cap=1",
        "watch_test=true",
    ),
    one_finding_per_epoch=("dwarf", "dwarf-prior", "direct"),
    # a finding trained last is favoured; GAIN gets as many looks for its best epoch
    evaluate_at_cycles=True,
)

STARTER = Scale(
    name="starter",
    words="each method's own defaults with the starter encoders, 12 epochs, every finding in every "
    "step: a quarter of an hour a training on a CPU with some 700 training films.",
    epochs=12,
    changes=("evaluate_every=2", "watch_test=true"),
)

TINY = Scale(
    name="tiny",
    words="a few steps of a tiny decoder: shows that everything runs. Its numbers mean nothing.",
    epochs=1,
    network_changes={
        "vision-language": (
            "width=32",
            "layers=1",
            "attention_heads=2",
            "feedforward=32",
            "map_size=16",
        ),
        "class-attention": ("width=16",),
        "ham": ("width=16", "map_size=16"),
        "retinanet": ("width=16", "depth=1"),
        "report-attention": ("width=16", "best_regions=8", "worst_regions=4"),
    },
    network_epochs={"report-attention": 1},
    changes=("batch_size=8", "watch_test=true"),
    seeds=(0,),
    draws=40,
    teachers=TeacherSettings(folds=2, epochs=2, size=32),
)

SCALES = (PAPER, STARTER, TINY)


def find_scale(name: str) -> Scale:
    """The scale of that name; `name` is one of theirs."""
    return next(scale for scale in SCALES if scale.name == name)
