"""Top-k lists from the responses of other servers."""
