"""Tests that need llama-cpp-python; ``make test-llama`` runs them."""
