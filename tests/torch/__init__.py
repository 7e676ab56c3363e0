"""Tests of the torch adapter."""
