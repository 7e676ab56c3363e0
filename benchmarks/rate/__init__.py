"""Bits of a distribution, against what sending less than all of it costs.

* `~benchmarks.rate.schemes`: the ways to send a distribution, and their parameters
* `~benchmarks.rate.measure`: one run from a source to results
* `~benchmarks.rate.report`: tables and the picture
* `~benchmarks.rate.conformal`: C-SQS with the paper's online threshold
"""
