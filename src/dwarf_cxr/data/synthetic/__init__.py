"""Schematic chest radiographs with thirteen findings and exact masks."""

from dwarf_cxr.data.synthetic.films import Film, FilmSettings, draw_film

__all__ = ["Film", "FilmSettings", "draw_film"]
