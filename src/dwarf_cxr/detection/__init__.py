"""Boxes around findings: anchors, offsets, suppression, and features inside a box."""
