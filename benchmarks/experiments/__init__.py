"""The experiments of the SQS paper, reproduced and extended: docs/experiments.md."""
