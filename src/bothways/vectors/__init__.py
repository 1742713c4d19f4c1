"""Vectors of texts: made, grouped, indexed and searched."""
