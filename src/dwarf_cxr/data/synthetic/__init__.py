"""Schematic chest radiographs with thirteen findings and exact masks."""

from dwarf_cxr.data.synthetic.films import Film, FilmSettings, draw_film
from dwarf_cxr.data.synthetic.reading import read_synthetic

__all__ = ["Film", "FilmSettings", "draw_film", "read_synthetic"]
