"""An edge: a draft model that writes texts with a cloud's target model.

`Edge` has all of it: a draft model of any kind, a session, the loop and a planner.
`generate` is the loop alone, over an `sqs_codec.system.session.EdgeSession`: it has
the clock that a session lacks. A `Planner` says what the loop does next.
"""

from sqs_codec.system.edge._edge import Edge, EdgeMetrics
from sqs_codec.system.edge._line import RefusalError
from sqs_codec.system.edge._loop import Planning, generate
from sqs_codec.system.edge._model import Draft, DraftModel, TextDraft, TextStream
from sqs_codec.system.edge._planner import (
    FixedPlan,
    Handshake,
    Hints,
    Plan,
    Planner,
    Prefer,
    Step,
)
from sqs_codec.system.edge._shaped import ShapedLink
from sqs_codec.system.session import MODES, Mode

__all__ = [
    "MODES",
    "Draft",
    "DraftModel",
    "Edge",
    "EdgeMetrics",
    "FixedPlan",
    "Handshake",
    "Hints",
    "Mode",
    "Plan",
    "Planner",
    "Planning",
    "Prefer",
    "RefusalError",
    "ShapedLink",
    "Step",
    "TextDraft",
    "TextStream",
    "generate",
]
