"""Tests that need Ray."""
