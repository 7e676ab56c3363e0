"""Tests of models of transformers at both ends."""
