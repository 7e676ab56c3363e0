"""The ``sqs`` command; each of its commands is a module here."""
