"""Image-text contrast: a film and its own report are nearer than the film and another's."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

NO_TEXT = -1


def contrastive_loss(
    image_vectors: Float[Tensor, "image d"],
    text_vectors: Float[Tensor, "image d"],
    texts: Int64[Tensor, "image"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, "image"]:
    """Symmetric InfoNCE of each film and its text; 0 for a film without one, which has no part.

    With similarities s_ij = scale · v_i · t_j, half of -log(exp s_ii / Σ_j exp s_ij) and half of
    -log(exp s_ii / Σ_j exp s_ji). Films of the same text (most normal ones, in many archives) are
    not each other's negatives: their pairs are left out of both sums.

    KAD multiplies by ln(1 / .07) = 2.66 itself and does not bring the vectors to length 1; here,
    as in CLIP, `scale` is its exponential and vectors have length 1.

    Args:
        image_vectors: of length 1.
        text_vectors: of length 1, each film's own text.
        texts: equal numbers are equal texts; -1 where the film has none.
    """
    kept = (texts != NO_TEXT).nonzero()[:, 0]
    logits = scale * image_vectors[kept] @ text_vectors[kept].T
    same = texts[kept][:, None] == texts[kept]
    own = torch.eye(len(kept), dtype=torch.bool, device=texts.device)
    logits = logits.masked_fill(same & ~own, float("-inf"))
    answers = torch.arange(len(kept), device=texts.device)
    losses = (
        F.cross_entropy(logits, answers, reduction="none")
        + F.cross_entropy(logits.T, answers, reduction="none")
    ) / 2
    return torch.zeros(len(texts), dtype=losses.dtype, device=losses.device).index_put(
        (kept,), losses
    )
