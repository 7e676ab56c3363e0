"""Bits per distribution against the loss of sending less than all of it."""
