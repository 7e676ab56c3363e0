"""What programs that run edges and verifiers share."""

K, RESOLUTION, ROUND, TEMPERATURE = 64, 100, 5, 0.7
"""Of sessions, where nothing else is said: with ROUND drafted tokens at once."""
