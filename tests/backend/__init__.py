"""Tests of the cores: identity, vectors and what chooses one."""
