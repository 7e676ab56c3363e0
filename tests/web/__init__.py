"""Pages in Chromium, which `make test-web` opens them with."""
