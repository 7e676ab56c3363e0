"""The experiments of the SQS paper, reproduced and extended (docs/benchmarks)."""
