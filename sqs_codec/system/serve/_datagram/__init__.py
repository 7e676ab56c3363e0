"""Sessions over datagrams with DTLS."""
