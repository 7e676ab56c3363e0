"""An edge: a draft model that produces completions with a cloud's target model.

`Edge.generate` makes and keeps sessions; `generate` takes your own
`sqs_codec.system.session.EdgeSession`. A `Planner` chooses the mode for both.
"""

from sqs_codec.system._base.protocol import Mode
from sqs_codec.system.edge._edge import Edge
from sqs_codec.system.edge._line import RefusalError
from sqs_codec.system.edge._loop import Planning, generate
from sqs_codec.system.edge._model import Draft
from sqs_codec.system.edge._planner import (
    FixedPlan,
    Hints,
    Plan,
    Planner,
    Prefer,
    Step,
)
from sqs_codec.system.edge._shaped import ShapedLink

__all__ = [
    "Draft",
    "Edge",
    "FixedPlan",
    "Hints",
    "Mode",
    "Plan",
    "Planner",
    "Planning",
    "Prefer",
    "RefusalError",
    "ShapedLink",
    "Step",
    "generate",
]
