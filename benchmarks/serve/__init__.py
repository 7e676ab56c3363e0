"""How many sessions one box serves, and how fast."""
