"""The reference implementation, and what is made from it."""


class BrokenRuleError(Exception):
    """A packet breaks a rule; the argument is the name of the status."""
