"""Training: `loop.train` runs it, `step` makes one optimiser step, `schedules` gives the learning rate."""
