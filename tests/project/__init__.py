"""Tests of the project: its tree, packages and pages."""
