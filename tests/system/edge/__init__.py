"""Tests of an edge and its planner."""
