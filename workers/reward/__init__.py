"""The guard as a reward signal for training."""
