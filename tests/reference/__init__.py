"""The reference implementation, and what is made from it."""
