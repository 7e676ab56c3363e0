"""Mistakes that type checkers find: mypy reports an ignored one that it doesn't."""

# ruff: noqa: B018  # nothing of it runs

import numpy as np
import torch

import sqs_codec as sqs
import sqs_codec.torch as tensors
from sqs_codec import distill, testing
from sqs_codec.system import edge, serve, session
from tests.typing.user import CODEC, Draft, Target, Teacher

rng, row = np.random.default_rng(0), np.zeros(256, np.float32)
q = CODEC.quantize(row, sqs.TopK(8))
link, writer = session.LocalLink(Target()), edge.Edge(Draft())

sqs.Codec(256, coding="entrpy")  # type: ignore[arg-type]
CODEC.quantize(row, 64)  # type: ignore[arg-type]
CODEC.encode([q])  # type: ignore[arg-type]
CODEC.decode("packet")  # type: ignore[arg-type]
q.token_ids = q.token_ids  # type: ignore[misc]
sqs.Drafter(CODEC, sqs.TopK(8))  # type: ignore[call-arg]
sqs.gumbel_draw(row, bytes(16), 3, temperature=0.7)  # type: ignore[call-arg]
sqs.verify(CODEC.decode_round(b""), row, rng).count  # type: ignore[attr-defined]
tensors.verify(None, torch.zeros(1))  # type: ignore[arg-type]
tensors.quantize(CODEC, row, sqs.TopK(8))  # type: ignore[arg-type]
writer.generate([1], link)  # type: ignore[call-arg]
edge.Edge(Draft(), prefer="quality")  # type: ignore[arg-type]
session.LocalLink(Draft())  # type: ignore[arg-type]
serve.connect("a:8743", security=True)  # type: ignore[arg-type]
distill.load("teacher.parquet").numbers  # type: ignore[attr-defined]
distill.make("teacher.parquet", CODEC, Draft(), ["a text"])  # type: ignore[arg-type]
for step in writer.generate("a text", link, max_tokens=9):  # type: ignore[arg-type]
    step.text  # type: ignore[attr-defined]
testing.check_lossless(Teacher())  # type: ignore[arg-type]
