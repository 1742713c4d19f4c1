"""One loop for all training: settings, steps, optimizer, checkpoints, ranks, log."""
