"""What distributions cost, in bits and in time: ``sqs bench rate`` and ``speed``.

``docs/rate.md`` and ``docs/performance.md`` explain what they print. Both take logits
from `~sqs_codec.bench.sources`. The modules of ``rate``:

* `~sqs_codec.bench.schemes`: the ways to send a distribution, and their parameters
* `~sqs_codec.bench.ideal`: what the models of the entropy coding cost in real numbers
* `~sqs_codec.bench.fronts`: Pareto fronts, and what lies between their points
* `~sqs_codec.bench.rate`: one run from a source to results
* `~sqs_codec.bench.results`: what was measured, and what follows from it
* `~sqs_codec.bench.report`, `~sqs_codec.bench.plot`: tables and the picture

Those of ``speed``:

* `~sqs_codec.bench.rows`: the rows that are timed on, for any vocabulary
* `~sqs_codec.bench.engines`: backends and instruction sets, side by side
* `~sqs_codec.bench.timing`: contestants in turns on one core, and the floor
* `~sqs_codec.bench.contestants`: what is timed, ours and others'
* `~sqs_codec.bench.overhead`: what Python adds to the C core
* `~sqs_codec.bench.speed`: one run, and what it is held to
* `~sqs_codec.bench.speed_report`, `~sqs_codec.bench.speed_plot`: tables and pictures

Everything here needs the ``bench`` extra; the rest of the package never imports it.
"""
