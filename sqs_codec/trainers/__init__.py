"""Teacher files in other trainers, one module each."""
