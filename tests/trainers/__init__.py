"""Trainers that others made, with a file of ours."""
