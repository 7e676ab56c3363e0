"""Small drafts for a target: texts, training, and what they are worth."""
