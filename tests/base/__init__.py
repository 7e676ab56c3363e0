"""Tests of what every room stands on."""
