"""Small drafts for a target: texts, training, and acceptance."""
