"""A draft model and a target model that speak to each other through bytes.

`sqs demo` runs it; ``docs/demo.md`` explains what it prints. The modules:

* `~sqs_codec.cli.demo.command`: its options
* `~sqs_codec.cli.demo.count`: what passes between the two ends of a session
* `~sqs_codec.cli.demo.report`: what the terminal shows
* `~sqs_codec.cli.demo.run`: one run from options to the table

All but the first need the ``demo`` extra.
"""
