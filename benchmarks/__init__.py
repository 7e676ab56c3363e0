"""Programs that measure, compare or reproduce the documentation's figures.

Each module or folder says what it measures, and each page of the documentation names
the programs behind its figures. Shared parts are `~benchmarks.tables` (options and
tables), `~benchmarks.sources` (logits), `~tests.relay` (real links) and `~tests.world`
(the real loop on a virtual clock).

Run them in the source tree, with the ``bench`` extra installed.
"""
