"""Everything between two machines, on top of the codec.

`session` turns what both ends say into bytes, without a clock or a socket; `edge` is
the loop of a draft model and its planner; `engine` is what verifies; `hf`, `llama_cpp`,
`vllm` and `ray` run models; `serve` and `proxy` listen. Each is imported by itself.
"""
