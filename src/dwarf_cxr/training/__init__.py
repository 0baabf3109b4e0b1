"""Schedules, augmentation, checkpoints and the one training loop."""
