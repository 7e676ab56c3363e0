"""Engines held to transformers, and to each other: equal verdicts, speed, overhead."""
