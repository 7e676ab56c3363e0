"""Bits of a distribution, against what sending less than all of it costs."""
