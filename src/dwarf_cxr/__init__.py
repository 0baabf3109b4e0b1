"""Chest X-ray classifiers that look where a clinician looks."""

__version__ = "0.1.0"
