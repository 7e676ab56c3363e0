"""The states of both ends, and what leads from which of them to which.

Small letters are calls, capitals messages that come. What isn't named leaves a state
as it is. `docs/system.md` has this as a picture.
"""

_WORKS = "idle drafting waiting generating"

EDGE = (
    ("greeting", "WELCOME", _WORKS),
    ("idle", "push", "drafting"),
    ("drafting", "flush", "waiting"),
    ("waiting", "ANSWER", "idle"),
    ("idle", "generate", "generating"),
    ("generating", "TOKENS", "idle"),
    ("drafting waiting generating", "abort", "idle"),
    (_WORKS, "reconnect", "greeting"),
    (_WORKS, "NEED", "greeting"),
    (f"greeting {_WORKS}", "end", "ended"),
    (f"greeting {_WORKS}", "refusal", "refused"),
)

_KNOWN = "ready judging decoding collecting"

CLOUD = (
    ("new", "HELLO", "ready"),
    ("ready", "ROUND", "judging"),
    ("judging", "complete", "ready"),
    ("ready", "GENERATE", "decoding"),
    ("decoding", "complete", "ready"),
    ("ready judging decoding", "CONTEXT", "collecting"),
    ("judging decoding collecting", "CONTEXT", "ready"),
    (f"new {_KNOWN}", "END", "ended"),
    (f"new {_KNOWN}", "refusal", "refused"),
)
