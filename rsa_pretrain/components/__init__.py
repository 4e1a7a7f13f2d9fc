"""Compose methods of these: backbones, heads, losses, targets, schedules, optimizers."""
