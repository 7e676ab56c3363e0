"""Engines held to transformers: equal verdicts."""
