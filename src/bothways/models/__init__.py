"""Sizes, and models as folders: tokenizer + encoder + task, saved so that the ecosystem reads them."""
