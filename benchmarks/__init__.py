"""Everything that measures, compares or reproduces a figure of the documentation.

* ``data/``: logits of real drafts and what makes and loads them; the fit of the
  entropy coding's tables
* `~benchmarks.sources`: where the logits of a measurement come from
* `~benchmarks.tables`: what all reports share
* ``rate/``: bits against distortion and acceptance, ``python -m benchmarks.rate``
  (``docs/rate.md``)
* ``speed/``: time of every call, ``python -m benchmarks.speed``
  (``docs/performance.md``)

It runs in the source tree, with the ``bench`` extra installed.
"""
