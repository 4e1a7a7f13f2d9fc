"""Building blocks of the methods: backbones, heads, losses, targets, schedules, optimizers."""
