"""Everything that measures, compares or reproduces a figure of the documentation.

* ``data/``: logits of real drafts and what makes and loads them; the fit of the
  entropy coding's tables
* `~benchmarks.sources`: where the logits of a measurement come from
* `~benchmarks.tables`: what all programs share
* ``rate/``: bits against distortion and acceptance (``docs/rate.md``)
* ``speed/``: time of every call (``docs/performance.md``)
* ``wire/``: bytes of a round by each transport (``docs/transports.md``)
* ``engines/``: verifiers of many sessions, on the ``harness/``, and
  `~benchmarks.rounding`, what rounding does to their rows (``docs/verifier.md``)
* ``planner/``: the planner, in `~benchmarks.world` (``docs/planner.md``);
  `~benchmarks.relay` has real links
* ``choosing/``: presets (``docs/choosing.md``)
* ``experiments/``: those of the paper, and more (``docs/experiments.md``)
* ``distill/``: kept distributions of a teacher (``docs/experiments/distill.md``)
* `~benchmarks.gumbel`, `~benchmarks.draft_steps`: draws by shared numbers, and steps of
  GGUF drafts (``docs/performance.md``, ``docs/llama-cpp.md``)

It runs in the source tree, with the ``bench`` extra installed.
"""
