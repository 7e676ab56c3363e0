"""Sessions of an edge and a cloud, without a clock, a socket or a thread.

`EdgeSession` turns drafts into messages and messages into text, `CloudSession` turns
messages into jobs for a target model and its verdicts into messages. What carries the
messages is a `Link`, what does the jobs a `Verifier`. The protocol is described in
``docs/system.md``.
"""

from sqs_codec.system.session._cloud import (
    CloudSession,
    refusal,
    session_of,
    unknown_session,
)
from sqs_codec.system.session._edge import EdgeSession, Emitted, Refused, Welcomed
from sqs_codec.system.session._handshake import Setting
from sqs_codec.system.session._hints import HINT_THRESHOLD, more_seconds
from sqs_codec.system.session._job import (
    MODES,
    PART,
    Job,
    Mode,
    Verifier,
    verify_jobs,
)
from sqs_codec.system.session._limits import (
    MAX_AHEAD,
    MAX_DRAFT,
    MAX_HINTED,
    MAX_MESSAGE,
    MAX_SETTINGS,
    Limits,
)
from sqs_codec.system.session._link import Link, LinkError, LocalLink
from sqs_codec.system.session._numbers import seed_of
from sqs_codec.system.session._wire import HELLO, ROUND_HEAD

__all__ = [
    "HELLO",
    "HINT_THRESHOLD",
    "MAX_AHEAD",
    "MAX_DRAFT",
    "MAX_HINTED",
    "MAX_MESSAGE",
    "MAX_SETTINGS",
    "MODES",
    "PART",
    "ROUND_HEAD",
    "CloudSession",
    "EdgeSession",
    "Emitted",
    "Job",
    "Limits",
    "Link",
    "LinkError",
    "LocalLink",
    "Mode",
    "Refused",
    "Setting",
    "Verifier",
    "Welcomed",
    "more_seconds",
    "refusal",
    "seed_of",
    "session_of",
    "unknown_session",
    "verify_jobs",
]
