"""Clients that others made, which `make test-clients` has chat with `sqs proxy`."""
