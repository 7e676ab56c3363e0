"""What clients may ask for, and how long they may take."""

from __future__ import annotations

MOST_BYTES = 1 << 20  # of a body
HEADER_BYTES = 1 << 14  # of a request's headers, summed

MOST_STOPS, LONGEST_STOP = 16, 256  # strings that end a text, and their characters
MOST_PROMPTS = 128  # texts that one request may ask for
LONGEST_NAME = 256  # characters of a model's name, where any is taken

CONNECTIONS = 128
"""Of strangers, and of those who have shown the key, besides one for each text."""

SHAKING_SECONDS = 10.0  # for the handshake of TLS
READING_SECONDS = 30.0  # for a body to come, and for what waits of an answer to be read

SILENT_SECONDS = READING_SECONDS + 5.0
"""For a request, and for the whole answer to be read. A body has less, so that one
that takes too long is told so."""

HOST_SHARE = 0.02
"""What the strangers of a host may take of the event loop's time. Those of two dozen
hosts at once still leave half of it."""

HANDSHAKE_COST = 1e-3  # seconds that it takes
STOPPING_SECONDS = 0.5  # for last words to be read when the server stops
