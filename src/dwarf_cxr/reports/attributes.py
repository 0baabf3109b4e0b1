"""The dictionary: 22 attributes of a lung finding, 11 of place and 11 of kind, and their words.

Bhalodia et al. (MICCAI 2021) describe findings with 22 attributes that they do not list. These are
proposed instead, each with the inflections and synonyms that reports use for it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from torch import Tensor

Location = Literal[
    "left",
    "right",
    "bilateral",
    "upper",
    "middle",
    "lower",
    "lingular",
    "basilar",
    "retrocardiac",
    "perihilar",
    "apical",
]
Opacity = Literal["opacity", "consolidation", "infiltrate", "airspace", "interstitial"]
"""Attributes that are lung findings by themselves."""
Quality = Literal["patchy", "focal", "multifocal", "diffuse", "hazy", "severe"]
"""Attributes that need a lung finding to describe: severe emphysema, but not severe scoliosis."""
Attribute = Literal[Location, Opacity, Quality]

LOCATIONS: tuple[Attribute, ...] = get_args(Location)
OPACITIES: tuple[Attribute, ...] = get_args(Opacity)
QUALITIES: tuple[Attribute, ...] = get_args(Quality)
CHARACTERS: tuple[Attribute, ...] = OPACITIES + QUALITIES

ATTRIBUTES: tuple[Attribute, ...] = LOCATIONS + CHARACTERS
"""The order of every table and vector."""

IMPLIED: Mapping[Attribute, tuple[Attribute, ...]] = {"bilateral": ("left", "right")}

_SIDED = r"(?:[ -]?sided)?"

PATTERNS: Mapping[str, tuple[Attribute, ...]] = {
    rf"left{_SIDED}|leftward": ("left",),
    rf"right{_SIDED}|rightward": ("right",),
    r"bilateral(?:ly)?|both(?= (?:lungs?|sides|bases|apices|upper|mid|lower|hemithoraces|hila|"
    r"costophrenic|pleural)\b)": ("bilateral",),
    r"upper": ("upper",),
    r"middle|mid[ -]?lungs?|mid[ -]?zones?|mid(?=[ -](?:left|right|and|to|zone|field|portion|"
    r"aspect|chest|hemithorax|third|or)\b)": ("middle",),
    r"midright": ("middle", "right"),
    r"midleft": ("middle", "left"),
    r"lower(?! lung volumes?\b)": ("lower",),
    r"lingula(?:r)?": ("lingular",),
    r"basilar|basal(?:ly)?|bases|base(?! of (?:the )?(?:heart|skull|neck|tongue)\b)": ("basilar",),
    r"bibasilar|bibasal|bi-basilar|bi-basal": ("bilateral", "basilar"),
    r"retro-?cardiac|behind the heart": ("retrocardiac",),
    r"(?:peri|para|infra|supra|juxta)?-?hilar|hilum|hila": ("perihilar",),
    r"bihilar": ("bilateral", "perihilar"),
    r"apical|(?<!cardiac )(?<!heart )apex(?! of the heart\b)|apices": ("apical",),
    r"bi-?apical": ("bilateral", "apical"),
    r"rul": ("right", "upper"),
    r"rml": ("right", "middle"),
    r"rll": ("right", "lower"),
    r"lul": ("left", "upper"),
    r"lll": ("left", "lower"),
    r"opacit(?:y|ies)|opacifications?|opacified|opacifying|"
    r"(?<!bone )(?<!bony )(?<!metallic )(?<!tissue )densit(?:y|ies)": ("opacity",),
    r"consolidat(?:ion|ions|ive|ed|ing)": ("consolidation",),
    r"infiltrat(?:e|es|ion|ions|ive)": ("infiltrate",),
    r"air[ -]?spaces?|alveolar": ("airspace",),
    r"interstitial(?:ly)?|interstitium|reticular|reticulation|reticulonodular": ("interstitial",),
    r"patchy|patch(?:es)?": ("patchy",),
    r"(?<!multi-)(?<!multi )(?<!non-)focal(?:ly)?|focus|locali[sz]ed": ("focal",),
    r"multi[ -]?focal(?:ly)?|multilobar": ("multifocal",),
    r"diffuse(?:ly)?|widespread|generali[sz]ed": ("diffuse",),
    r"hazy|haziness|haze|ground[ -]glass|groundglass": ("hazy",),
    r"severe(?:ly)?|extensive(?:ly)?|marked(?:ly)?|massive": ("severe",),
}
"""Words, as regular expressions on lower-case text, and the attributes that they say.

"base" and "apex" say no side; their plurals do not say both sides either, nor does "left … right
…" in one sentence: `bilateral` is for reports that call a finding so.
"""

_PATTERN = re.compile(
    "|".join(rf"(?P<p{number}>\b(?:{words})\b)" for number, words in enumerate(PATTERNS))
)
_MEANINGS = tuple(PATTERNS.values())


@dataclass(frozen=True, slots=True)
class Mention:
    """Characters `start` to `end` of a lower-case sentence and the attributes that they say."""

    start: int
    end: int
    attributes: tuple[Attribute, ...]


def find_mentions(sentence: str) -> tuple[Mention, ...]:
    """Every word of the dictionary, in the order of the sentence, in whatever case."""
    mentions = []
    for match in _PATTERN.finditer(sentence.lower()):
        number = int((match.lastgroup or "p0")[1:])
        mentions.append(Mention(match.start(), match.end(), _MEANINGS[number]))
    return tuple(mentions)


_MIRRORED: Mapping[Attribute, Attribute] = {"left": "right", "right": "left"}

FLIP_ORDER: tuple[int, ...] = tuple(
    ATTRIBUTES.index(_MIRRORED.get(attribute, attribute)) for attribute in ATTRIBUTES
)
"""Vector of a mirrored film: `vector[..., FLIP_ORDER]`."""

Vectors = TypeVar("Vectors", np.ndarray, Tensor)


def flipped(attributes: Iterable[Attribute]) -> tuple[Attribute, ...]:
    """What the attributes are called on the horizontally mirrored film: left and right swapped."""
    return tuple(_MIRRORED.get(attribute, attribute) for attribute in attributes)


def flipped_vectors(vectors: Vectors) -> Vectors:
    """The same for vectors (…, 22) in the order of `ATTRIBUTES`; its own inverse."""
    order: Sequence[int] = list(FLIP_ORDER)
    return vectors[..., order]
