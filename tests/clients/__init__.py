"""Third-party clients; `make test-clients` lets them chat with `sqs proxy`."""
