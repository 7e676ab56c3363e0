"""Logits of real drafts, their loaders, and the tables fitted to them."""
