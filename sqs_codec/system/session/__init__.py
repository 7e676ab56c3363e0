"""Sessions of an edge and a cloud, without a clock, a socket or a thread.

`EdgeSession` turns drafts into messages, and messages into text. `CloudSession` turns
messages into jobs for a target model, and verdicts into messages. A `Link` carries the
messages, a `Verifier` does the jobs. ``docs/protocol.md`` describes the protocol.
"""

from sqs_codec.system.session._cloud import CloudSession
from sqs_codec.system.session._edge import EdgeSession, Emitted
from sqs_codec.system.session._handshake import Setting
from sqs_codec.system.session._job import (
    Job,
    Read,
    Verifier,
    VerifyHints,
    VerifyRound,
    verify_jobs,
)
from sqs_codec.system.session._link import Link, LinkError, LocalLink
from sqs_codec.system.session._wire import Limits

__all__ = [
    "CloudSession",
    "EdgeSession",
    "Emitted",
    "Job",
    "Limits",
    "Link",
    "LinkError",
    "LocalLink",
    "Read",
    "Setting",
    "Verifier",
    "VerifyHints",
    "VerifyRound",
    "verify_jobs",
]
