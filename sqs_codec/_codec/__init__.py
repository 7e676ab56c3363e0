"""The codec: from logits to counts, to bytes, and back to a verdict."""
