"""The page of a reproduction: one HTML file that holds everything and asks for nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dwarf_cxr import __version__
from dwarf_cxr.reporting.overlay import embed
from dwarf_cxr.reproduce.plan import PlannedRow
from dwarf_cxr.reproduce.recipes import Recipe
from dwarf_cxr.reproduce.scales import Scale
from dwarf_cxr.reproduce.tables import Table

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Chart:
    """A picture with its words."""

    title: str
    caption: str
    content: bytes
    media_type: str = "image/svg+xml"

    @property
    def image(self) -> str:
        """As a data URI."""
        return embed(self.content, self.media_type)


@dataclass(frozen=True)
class Block:
    """What one data set, or one comparison, says."""

    title: str
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[Chart, ...] = ()


def render_page(
    recipe: Recipe,
    scale: Scale,
    rows: Sequence[PlannedRow],
    blocks: Sequence[Block],
    *,
    cautions: Sequence[str],
    command: str,
    csv_name: str,
) -> str:
    """The page's HTML."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("dwarf_cxr.reproduce").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=recipe.title,
        question=recipe.question,
        scale=scale,
        blocks=blocks,
        cautions=cautions,
        remarks=recipe.cautions,
        commands=[(f"{row.title}: {row.name}", _commands(row)) for row in rows],
        command=command,
        csv_name=csv_name,
        style=_report_style(),
        version=__version__,
    )


def _commands(row: PlannedRow) -> list[str]:
    return [
        line for training in row.trainings for line in (training.command, training.evaluate_command)
    ]


def _report_style() -> Markup:
    """The style of the reports of runs, so that all pages look alike."""
    template = files("dwarf_cxr.reporting").joinpath("compare.html.j2").read_text(encoding="utf-8")
    return Markup(template.split("<style>", 1)[1].split("</style>", 1)[0])
