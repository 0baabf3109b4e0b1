"""Radiology reports as 22 attributes of what they say of the lungs: where, and of what kind."""
