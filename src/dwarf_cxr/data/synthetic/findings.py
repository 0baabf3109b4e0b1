"""The thirteen findings of ChestX-Det, drawn where the disease would lie.

A finding changes the chest in one or both of two ways. `altered` bends a patient's proportions
before anything is drawn (a larger heart, a flatter diaphragm). A drawer of `DRAWERS` then paints
on the drawn chest and returns the mask.

What the masks are:

- Cardiomegaly: the enlarged heart's silhouette, above the diaphragm as below it.
- Emphysema: both lungs as far as they are seen beside heart and mediastinum.
- every other finding: exactly the pixels that its drawer painted. Nothing outside changes, with
  one exception: atelectasis that takes volume also raises the diaphragm and draws the heart
  over on its side, as in the patient, and those secondary signs are not part of its mask.
- Diffuse Nodule: the field of lung in which the nodules are sown, as annotators outline it;
  between the nodules the field is a little hazy.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dwarf_cxr.data.synthetic.anatomy import Chest
from dwarf_cxr.data.synthetic.body import Proportions
from dwarf_cxr.data.synthetic.opacities import (
    Collapse,
    atelectasis,
    calcification,
    consolidation,
    diffuse_nodule,
    emphysema,
    fibrosis,
    mass,
    nodule,
)
from dwarf_cxr.data.synthetic.places import Drawn, pick
from dwarf_cxr.data.synthetic.pleura_and_bone import (
    effusion,
    fracture,
    pleural_thickening,
    pneumothorax,
)


def altered(
    body: Proportions,
    present: Sequence[str],
    generators: dict[str, np.random.Generator],
) -> tuple[Proportions, Collapse | None]:
    """The patient's proportions as the disease has bent them, and the kind of atelectasis.

    Only Cardiomegaly, Emphysema and Atelectasis bend them; each takes its own random numbers
    first here and goes on with them in its drawer.
    """
    collapse = None
    if "Emphysema" in present:
        more = generators["Emphysema"].uniform(0.6, 1.2)
        body = replace(
            body,
            dome_right=body.dome_right + 0.050 * more,
            dome_step=0.5 * body.dome_step,
            flatness=0.80 + 0.12 * more,
            angle_depth=0.75 * body.angle_depth,
            half_width=body.half_width * (1 + 0.035 * more),
            wall=0.8 * body.wall,
            heart_ratio=body.heart_ratio - 0.075 * more,
            rib_spacing=body.rib_spacing * (1 + 0.05 * more),
            rib_drop=0.75 * body.rib_drop,
            air=body.air + 0.05 + 0.06 * more,
            vessels=body.vessels * (0.75 - 0.25 * more),
        )
    if "Cardiomegaly" in present:
        ratio = float(generators["Cardiomegaly"].uniform(0.545, 0.655))
        body = replace(
            body,
            heart_ratio=ratio,
            heart_height=body.heart_height * (1 + 0.55 * (ratio - 0.5)),
            vessels=1.15 * body.vessels,
        )
    if "Atelectasis" in present:
        collapse = Collapse.draw(generators["Atelectasis"])
        if collapse.lobar:
            rise = 0.035 if collapse.upper else 0.050
            shift = 0.09 * collapse.side
            body = replace(
                body,
                dome_right=body.dome_right - (rise if collapse.side < 0 else 0.0),
                dome_step=body.dome_step + (-rise if collapse.side > 0 else rise),
                heart_left_share=body.heart_left_share + shift,
            )
    return body, collapse


def _cardiomegaly(chest: Chest, generator: np.random.Generator) -> Drawn:
    sentence = pick(
        generator,
        "The heart is enlarged.",
        "Cardiomegaly.",
        "The cardiac silhouette is wider than half of the chest.",
    )
    return Drawn(chest.heart.copy(), sentence)


DRAWERS: dict[str, Callable[[Chest, np.random.Generator], Drawn]] = {
    "Fracture": fracture,
    "Emphysema": emphysema,
    "Cardiomegaly": _cardiomegaly,
    "Fibrosis": fibrosis,
    "Diffuse Nodule": diffuse_nodule,
    "Nodule": nodule,
    "Mass": mass,
    "Consolidation": consolidation,
    "Calcification": calcification,
    "Pleural Thickening": pleural_thickening,
    "Effusion": effusion,
    "Pneumothorax": pneumothorax,
}
"""In the order of drawing: air and fluid in the pleural space come last, they hide the lung.

Atelectasis stands apart (`draw_findings`), because its kind is settled with the proportions.
"""


def draw_findings(
    chest: Chest,
    present: Sequence[str],
    generators: dict[str, np.random.Generator],
    collapse: Collapse | None,
) -> dict[str, Drawn]:
    """Draw all present findings onto the chest, in place; the masks as drawn."""
    drawn = {}
    if collapse is not None:
        drawn["Atelectasis"] = atelectasis(chest, generators["Atelectasis"], collapse)
    for finding, drawer in DRAWERS.items():
        if finding in present:
            drawn[finding] = drawer(chest, generators[finding])
    return drawn
