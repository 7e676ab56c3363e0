"""A stored teacher that speaks what trainers ask of vLLM (the extra ``[proxy]``)."""
