"""Scores, map metrics, references and intervals."""
