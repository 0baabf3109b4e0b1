"""Losses: pure functions of predictions and targets."""
