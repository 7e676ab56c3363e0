"""What endpoints for clients of HTTP are made of (the extra ``[proxy]``)."""
