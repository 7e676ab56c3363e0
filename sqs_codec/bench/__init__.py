"""What distributions cost: ``sqs bench rate``.

``docs/rate.md`` explains what it prints. The modules:

* `~sqs_codec.bench.sources`: where the logits come from
* `~sqs_codec.bench.schemes`: the ways to send a distribution, and their parameters
* `~sqs_codec.bench.ideal`: what the models of the entropy coding cost in real numbers
* `~sqs_codec.bench.fronts`: Pareto fronts, and what lies between their points
* `~sqs_codec.bench.rate`: one run from a source to results
* `~sqs_codec.bench.results`: what was measured, and what follows from it
* `~sqs_codec.bench.report`, `~sqs_codec.bench.plot`: tables and the picture

Everything here needs the ``bench`` extra (rich, matplotlib; torch and transformers
for prompts); the rest of the package never imports it.
"""
