"""Weights of other projects: one importer per foreign family; `docs/weights.md`."""
