"""Logits of real drafts, their loaders, and the tables that are fitted to them."""
