"""How large a reproduction is: the paper's trainings, those of the starter, or a minute's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """What all rows of a table have in common; a row's own changes come after it."""

    name: str
    words: str
    epochs: int
    changes: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    draws: int = 1000
    """Bootstrap draws over patients."""
    one_finding_per_epoch: tuple[str, ...] = ()
    """Methods that are trained by `schedule=cyclic`, one finding in each epoch."""
    evaluate_at_cycles: bool = False
    """Evaluate every time each finding had its epoch, instead of as `changes` say."""

    def changes_for(self, method: str, findings: int) -> tuple[str, ...]:
        """The `--set` assignments of a row with this method and number of findings."""
        cyclic = ("schedule=cyclic",) if method in self.one_finding_per_epoch else ()
        cycles = (f"evaluate_every={findings}",) if self.evaluate_at_cycles else ()
        return (*self.changes, *cycles, *cyclic)


PAPER = Scale(
    name="paper",
    words="as the paper states it: ViT-B/16, 224 px, AdamW at 5e-5, batches of 32, 500 epochs, one "
    "finding per epoch for DWARF. Give --set text_encoder=FOLDER (Med-KEBERT) and --set "
    "image_encoder=FOLDER for pretrained encoders: without them the ViT starts at random.",
    epochs=500,
    changes=(
        "image_encoder=vit-b16",
        "frozen_layers=0",
        "width=768",
        "layers=4",
        "feedforward=1024",
        "positions=false",
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
    changes=(
        "batch_size=8",
        "width=32",
        "layers=1",
        "attention_heads=2",
        "feedforward=32",
        "map_size=16",
        "watch_test=true",
    ),
    seeds=(0,),
    draws=40,
)

SCALES = (PAPER, STARTER, TINY)


def find_scale(name: str) -> Scale:
    """The scale of that name; `name` is one of theirs."""
    return next(scale for scale in SCALES if scale.name == name)
