"""What programs that run edges and verifiers share."""
