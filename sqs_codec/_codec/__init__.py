"""The codec: logits to counts to bytes and back, and verification."""
