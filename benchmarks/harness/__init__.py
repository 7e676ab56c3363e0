"""Shared parts of programs that run edges and verifiers."""
