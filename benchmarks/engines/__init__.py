"""Comparing engines with transformers: the same jobs must give the same verdicts."""
