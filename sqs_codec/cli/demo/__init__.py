"""A draft model and a target model that speak to each other through bytes.

`sqs demo` runs it; ``docs/demo.md`` explains what it prints.
"""
