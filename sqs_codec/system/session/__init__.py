"""Sessions of an edge and a cloud, without a clock, a socket or a thread.

`EdgeSession` turns drafts into messages and messages into text, `CloudSession` turns
messages into jobs for a target model and its verdicts into messages. What carries the
messages is a `Link`, what does the jobs a `Verifier`. The protocol is described in
``docs/system.md``.
"""

from sqs_codec.system.session._cloud import CloudSession, session_of, unknown_session
from sqs_codec.system.session._edge import EdgeSession
from sqs_codec.system.session._events import Emitted, Refused, Welcomed
from sqs_codec.system.session._job import Job, Sampling, Verifier
from sqs_codec.system.session._judge import verify_jobs
from sqs_codec.system.session._limits import Limits
from sqs_codec.system.session._link import Link, LinkError
from sqs_codec.system.session._local import LocalLink
from sqs_codec.system.session._setting import Setting

__all__ = [
    "CloudSession",
    "EdgeSession",
    "Emitted",
    "Job",
    "Limits",
    "Link",
    "LinkError",
    "LocalLink",
    "Refused",
    "Sampling",
    "Setting",
    "Verifier",
    "Welcomed",
    "session_of",
    "unknown_session",
    "verify_jobs",
]
