"""What a transport of sessions needs besides `Link` and `CloudSession`.

A server reads from a connection's first message which session it is of (`session_of`),
answers `unknown_session` before there is one, and ends a connection with `refusal`.
"""

from sqs_codec.system._base.protocol import MAX_MESSAGE
from sqs_codec.system.session._wire import Need, Refusal, WireError, parse_hello

__all__ = ["MAX_MESSAGE", "refusal", "session_of", "unknown_session"]


def session_of(message: bytes) -> bytes | None:
    """Return the session id of a hello; None if a message is none, or broken."""
    try:
        hello = parse_hello(bytes(message))
    except WireError:
        return None
    return None if hello is None else hello.session


def refusal(reason: str) -> bytes:
    """Return the message that ends a session, or a connection that has none."""
    return Refusal(reason).to_bytes()


def unknown_session() -> bytes:
    """Return the answer to messages of a connection whose session isn't known."""
    return Need(None).to_bytes()
