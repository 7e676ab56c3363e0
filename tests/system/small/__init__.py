"""Tests of small drafts."""
