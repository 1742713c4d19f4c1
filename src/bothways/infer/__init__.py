"""Answers without training: the engine that runs batches, and the predictor that people talk to."""
