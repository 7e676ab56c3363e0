"""Pages in Chromium, as `make test-web` opens them."""
