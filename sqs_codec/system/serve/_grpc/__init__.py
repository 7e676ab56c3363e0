"""Sessions over gRPC streams."""
