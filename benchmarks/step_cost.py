"""What of a training step is not the image encoder, on the CPU: `python benchmarks/step_cost.py`.

The training loop's own steps (`take_step`) on made-up films with a 256-wide decoder, given stored
tokens of a ViT-B/16 of random weights; the image encoder alone, forwards, backwards and its share
of the optimiser; and KAD's way of encoding the prompts anew in each step. Process CPU time of one
thread, the smallest of interleaved rounds.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from made_up import made_up, noise
from timing import Target, heading, in_turn, line

from dwarf_cxr.config import RunConfig, with_overrides
from dwarf_cxr.data.batches import RegionTargets, load_batch
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.methods.dwarf import METHOD
from dwarf_cxr.models import text_encoders, vlm
from dwarf_cxr.models.hugging_face import quiet
from dwarf_cxr.objectives.label_loss import positive_weights
from dwarf_cxr.training.loop import take_step
from dwarf_cxr.training.losses import TrainingLoss
from dwarf_cxr.training.optimisation import build_optimizer

SIZE, FILMS = 224, 64
SETTINGS = ["image_encoder=vit-b16", "width=256", "accelerator=cpu", "precision=32-true"]


def main() -> None:
    """Print a table."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--batch", type=int, default=8)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--findings", type=int, nargs="+", default=[4, 13, 104])
    words.add_argument("--layers", type=int, default=2, help="of the decoder; the paper's are 4")
    given = words.parse_args()
    torch.set_num_threads(1)
    heading(
        f"Training step, ViT-B/16, width 256, {given.layers} decoder layers, fp32, batch "
        f"{given.batch}, one thread (torch {torch.__version__})"
    )
    rest: dict[int, float] = {}
    for count in given.findings:
        with tempfile.TemporaryDirectory() as folder:
            step = Step(Path(folder), count, given.batch, given.layers)
            rest[count] = of_findings(step, count, given.rounds)
    fewest, most = min(rest), max(rest)
    if most > fewest:
        added = (rest[most] - rest[fewest]) / (most - fewest)
        line(
            "a finding added",
            f"{added * 1e3:.1f} ms a step",
            f"{fewest} to {most} findings",
            added / rest[fewest],
            " of the rest of a step with the fewest",
        )


def of_findings(step: "Step", count: int, rounds: int) -> float:
    """Print the rows of so many findings; seconds of a step beside the image encoder."""
    calls = counted_text_encodings(step)
    beside, encoder, clipping, loading, prompts = in_turn(
        [step.take_without_encoder, step.encode, step.clip, step.load, step.encode_prompts], rounds
    )
    rest = beside + clipping
    whole = encoder + rest
    limit = {13: 0.07, 104: 0.12}.get(count)
    line(
        f"{count} findings: all but the image encoder",
        f"step {whole:.2f} s",
        f"encoder {encoder:.2f} s",
        rest / encoder,
        "",
        None if limit is None else Target(limit, at_most=True),
    )
    line(
        f"{count} findings: loading a batch",
        f"{loading * 1e3:.2f} ms",
        f"step {whole:.2f} s",
        loading / whole,
        "",
        Target(0.02, at_most=True),
    )
    line(
        f"{count} findings: text encoder calls in a step",
        str(calls),
        "KAD: 1 a step",
        calls,
        "",
        Target(0, at_most=True),
    )
    line(
        f"{count} findings: prompts encoded anew, as KAD does (MiniLM's BERT)",
        "stored vectors",
        f"{prompts * 1e3:.0f} ms a step",
        prompts / whole,
        " of a step",
    )
    return rest


class Step:
    """A training that takes steps on made-up films."""

    def __init__(self, folder: Path, count: int, batch: int, layers: int) -> None:
        findings = tuple(f"Finding {number}" for number in range(count))
        self.batch, self.number = batch, 0
        self.data = films(folder, findings)
        settings = with_overrides(METHOD.settings, None, [*SETTINGS, f"layers={layers}"])
        self.config = RunConfig(
            method="dwarf", findings=findings, data="", data_fingerprint="", settings=settings
        )
        model = vlm.build_classifier(settings.model, findings, SIZE, 0)  # type: ignore[arg-type]
        self.encoder = model.image_encoder
        self.encoder_optimizer = torch.optim.AdamW(self.encoder.parameters(), fused=True)
        self.fabric = Fabric(accelerator="cpu", devices=1)
        weights = positive_weights(
            torch.from_numpy(self.data.labels), settings.objective.positive_weight_cap
        )
        self.loss: Any
        self.optimizer: Any
        self.loss, self.optimizer = self.fabric.setup(
            TrainingLoss(model, settings.objective, weights, self.fabric),
            build_optimizer(model, settings.training),
        )
        indices = np.arange(FILMS)
        self.targets = RegionTargets.of(self.data, indices, settings.objective.map_size)
        self.asked = tuple(range(count))
        self.images = torch.rand(batch, SIZE, SIZE)
        with torch.no_grad():
            tokens = self.encoder(self.images)
        self.stored_tokens = tokens.requires_grad_()
        self.bert, self.tokens = bert_of(findings)
        self.take()

    def chosen(self) -> np.ndarray:
        """The films of the next step."""
        return np.random.default_rng(self.number).permutation(FILMS)[: self.batch]

    def take(self) -> None:
        """The training loop's step, with reading its batch, which the loop does beside it."""
        self.number += 1
        chosen = self.chosen()
        take_step(
            self.fabric,
            self.loss,
            self.optimizer,
            load_batch(self.data, self.targets, chosen, self.asked),
            None,
            chosen,
            self.asked,
            self.config,
            self.number,
        )

    def take_without_encoder(self) -> None:
        """The same step with stored tokens: a difference of two long times would be all noise."""
        self.encoder.forward = lambda images: self.stored_tokens
        try:
            self.take()
        finally:
            del self.encoder.forward

    def clip(self) -> None:
        """What the loop does with the encoder's gradients."""
        moving = [each for each in self.encoder.parameters() if each.grad is not None]
        norm = torch.nn.utils.get_total_norm([each.grad for each in moving])
        torch.nn.utils.clip_grads_with_norm_(moving, 1.0, norm)

    def load(self) -> None:
        """Reading a batch."""
        load_batch(self.data, self.targets, self.chosen(), self.asked)

    def encode(self) -> None:
        """The image encoder alone: forwards, backwards, its weights moved."""
        self.encoder_optimizer.zero_grad()
        self.encoder(self.images).square().mean().backward()
        self.encoder_optimizer.step()

    @torch.no_grad()
    def encode_prompts(self) -> None:
        """KAD's way: the text encoder reads all prompts again."""
        self.bert(**self.tokens)


def bert_of(prompts: tuple[str, ...]) -> tuple[Any, Any]:
    """The starter's BERT and the prompts' tokens."""
    from transformers import AutoTokenizer, BertModel

    folder = text_encoders.starter_text_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with quiet():
        bert = BertModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
    return bert.eval(), tokenizer(list(prompts), padding=True, return_tensors="pt")


def counted_text_encodings(step: Step) -> int:
    """How often a step runs any BERT."""
    from transformers import BertModel

    calls = 0
    forward = BertModel.forward

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(*arguments, **named)

    BertModel.forward = counted  # type: ignore[method-assign]
    try:
        step.take()
    finally:
        BertModel.forward = forward  # type: ignore[method-assign]
    return calls


def films(folder: Path, findings: tuple[str, ...]) -> PreparedData:
    """Films of noise; a tenth of the findings are present, each with a box."""
    generator = np.random.default_rng(0)
    pixels = noise(folder / "pixels.u8", (FILMS, SIZE, SIZE), generator)
    labels = (generator.random((FILMS, len(findings))) < 0.1).astype(np.float32)
    boxed = {film: tuple(np.flatnonzero(labels[film])) for film in range(FILMS)}
    return made_up(folder, pixels, labels, findings, boxed)


if __name__ == "__main__":
    main()
