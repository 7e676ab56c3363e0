"""Tests of files of a teacher's distributions."""
