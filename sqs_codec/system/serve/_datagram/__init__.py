"""Sessions over datagrams under DTLS."""
