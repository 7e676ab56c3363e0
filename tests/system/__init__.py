"""Tests of the system between two machines."""
