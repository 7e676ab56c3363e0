"""Parts of HTTP endpoints (the extra ``[proxy]``)."""
