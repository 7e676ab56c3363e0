"""Tests of the check of decoding loops."""
