"""Everything that measures, compares or reproduces a figure of the documentation.

A module or a folder says what it measures, and each page of the documentation which
program its figures are from. Several share `~benchmarks.tables`, what programs need,
`~benchmarks.sources`, where logits come from, `~tests.relay`, real links, and
`~tests.world`, the real loop on a virtual clock.

It runs in the source tree, with the ``bench`` extra installed.
"""
