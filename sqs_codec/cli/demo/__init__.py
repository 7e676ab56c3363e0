"""A text three ways from a server beside it: alone, by rounds and with hints.

`sqs demo` runs it; ``docs/demo.md`` explains what it prints.
"""
