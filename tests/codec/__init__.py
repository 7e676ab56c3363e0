"""Tests of the codec on every backend."""
