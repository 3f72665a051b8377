"""Weights: training, checkpoints, deviations, travel, trainability."""
