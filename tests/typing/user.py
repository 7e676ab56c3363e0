"""A program that uses every public module, free of type errors."""

# ruff: noqa: D101  # it isn't to be explained

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import sqs_codec as sqs
import sqs_codec.torch as tensors
from sqs_codec import distill, testing
from sqs_codec.system import edge, serve, session

SAMPLING = sqs.Sampling(temperature=0.7, top_k=40)
CODEC = sqs.Codec(vocab_size=256, resolution=50)


def send(logits: NDArray[np.float32], target: NDArray[np.float64]) -> sqs.Verdict:
    rng = np.random.default_rng(0)
    drafter = sqs.Drafter(CODEC, sqs.Conformal(), rng=rng)
    token: int | None = drafter.push(logits, temperature=0.7)
    received: sqs.Round = CODEC.decode_round(drafter.finish())
    verdict = sqs.verify(received, target, rng)
    drafter.feedback(verdict)
    drawn: int = sqs.gumbel_draw(logits, bytes(16), token or 0, sampling=SAMPLING)
    return sqs.Verdict(verdict.accepted, drawn)


def verify(round_: sqs.Round, logits: torch.Tensor) -> tuple[bytes, int]:
    q = tensors.quantize(CODEC, logits[0], sqs.TopK(8), temperature=0.7)
    verdict = tensors.verify(round_, logits, generator=torch.Generator())
    return CODEC.encode(q), verdict.accepted


class Draft(edge.Draft):
    vocab_size = 256

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        return np.zeros((1, 256), np.float32)


class Target:
    vocab_size, max_text = 256, 4096

    def verify(self, jobs: Sequence[session.Job]) -> list[sqs.Verdict | None]:
        rows = sum(job.wanted for job in jobs)
        return session.verify_jobs(jobs, np.zeros((rows, 256), np.float32))

    def forget(self, session: bytes) -> None: ...


def write(prompt: list[int], certificate: Path | None) -> tuple[list[int], float]:
    link: session.Link = session.LocalLink(Target())
    if certificate is not None:
        link = serve.connect("a:8743", security=serve.Certificate(certificate))
    writer = edge.Edge(Draft(), prefer="bytes")
    completion = writer.generate(prompt, link, max_tokens=9, sampling=SAMPLING)
    tokens = [token for step in completion for token in step.tokens]
    return tokens, completion.metrics.seconds


class Letters:
    vocab_size, bos, fingerprint = 256, None, b""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return [*text.encode("latin-1")]


class Teacher:
    tokenizer, max_tokens, at_once = Letters(), 100, 2048

    def read(self, texts: Iterable[Any]) -> Iterator[tuple[Any, NDArray[np.float64]]]:
        return ((text, 5 * np.eye(256)[text.tokens][text.places]) for text in texts)


def teach(path: Path, student: torch.nn.Module) -> float:
    distill.make(path, CODEC, Teacher(), ["a text", ([1, 2], [1])], model="a teacher")
    data: distill.Dataset = distill.load(path)
    batch = distill.collate([*data])
    loss = tensors.distillation_loss(student(**batch), batch)
    return loss.item() + distill.measure(data, Teacher()).mean.value


def decode(prompt: Sequence[int], draft: testing.Toy, *_: Any) -> list[int]:
    return [int(draft(prompt).argmax())]


def check() -> float:
    return testing.check_lossless(decode, trials=100).distance
