"""Blind preference studies: readers compare the maps of runs without knowing whose they are."""
