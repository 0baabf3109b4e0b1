"""The page of a reproduction: one HTML file that holds everything and asks for nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from dwarf_cxr import __version__
from dwarf_cxr.reporting.overlay import embed
from dwarf_cxr.reporting.page import page_environment
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
    template = files("dwarf_cxr.reproduce").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return (
        page_environment()
        .from_string(template)
        .render(
            title=recipe.title,
            question=recipe.question,
            scale=scale,
            blocks=blocks,
            cautions=cautions,
            remarks=recipe.cautions,
            commands=[(f"{row.title}: {row.name}", _commands(row)) for row in rows],
            command=command,
            csv_name=csv_name,
            version=__version__,
        )
    )


def _commands(row: PlannedRow) -> list[str]:
    return [
        line for training in row.trainings for line in (training.command, training.evaluate_command)
    ]
