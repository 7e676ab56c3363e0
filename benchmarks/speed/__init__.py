"""Time of every call, against other ways to do it and the floor.

* `~benchmarks.speed.timing`: contestants in turns on one core, and one read
* `~benchmarks.speed.engines`: backends and instruction sets, side by side
* `~benchmarks.speed.rows`: the rows that are timed on, for any vocabulary
* `~benchmarks.speed.rivals`: other ways to do it
* `~benchmarks.speed.measure`: one run
* `~benchmarks.speed.report`: its tables, and what it is held to
* `~benchmarks.speed.session`: the calls of a session's steps, which a test bounds
* `~benchmarks.speed.instructions`: instructions of the hot paths in C, by callgrind
"""
