"""Functions for writers of transports, in addition to `Link` and `CloudSession`.

A server finds the session in a connection's first message (`session_of`). It answers
`unknown_session` to messages without a session, and ends a connection with `refusal`.
"""

from sqs_codec.system._base.protocol import MAX_MESSAGE
from sqs_codec.system.session._wire import Need, Refusal, WireError, parse_hello

__all__ = ["MAX_MESSAGE", "refusal", "session_of", "unknown_session"]


def session_of(message: bytes) -> bytes | None:
    """Return the session id of a hello; None for any other or broken message."""
    try:
        hello = parse_hello(bytes(message))
    except WireError:
        return None
    return None if hello is None else hello.session


def refusal(reason: str) -> bytes:
    """Return the message that ends a session or a connection, with its reason."""
    return Refusal(reason).to_bytes()


def unknown_session() -> bytes:
    """Return the answer to messages whose session is unknown."""
    return Need(None).to_bytes()
