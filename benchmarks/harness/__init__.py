"""What programs that run edges and verifiers share.

* `~benchmarks.harness.sessions`: sessions that are played once, for their jobs
* `~benchmarks.harness.measure`: many sessions that do those jobs again, in turns
* `~benchmarks.harness.recorded`: models that say what was recorded of real ones
* `~benchmarks.harness.cells`: texts to write by them over a link, on any clock
* `~benchmarks.harness.edges`: edges of another process that draft for free
* `~benchmarks.harness.serving`: a server around an engine
* `~benchmarks.harness.make`: engines by name
"""

K, RESOLUTION, ROUND, TEMPERATURE = 64, 100, 5, 0.7
"""Of sessions, where nothing else is said: with ROUND drafted tokens at once."""
