"""What needs vLLM: `make test-vllm`."""
