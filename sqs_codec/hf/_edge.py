"""A Hugging Face model at the edge, which drafts for a cloud's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    MinPLogitsWarper,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.utils import GenerateDecoderOnlyOutput

import sqs_codec as sqs
from sqs_codec.hf._models import (
    CachedModel,
    HFModel,
    HFTokenizer,
    stop_tokens,
    tokenizer_fingerprint,
    vocab_size,
)
from sqs_codec.session import (
    EdgeSession,
    Link,
    Planner,
    Sampling,
    Setting,
    Step,
    generate,
)
from sqs_codec.session._loop import Planning

__all__ = ["Edge", "Metrics", "custom_generate"]

KNOWN_WARPERS = (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    MinPLogitsWarper,
)
"""What `Sampling` says; the cloud can't apply any other processor."""


@dataclass
class Metrics:
    """Sums over the texts of an edge.

    Attributes
    ----------
    tokens : int
        Of the texts, prompts not counted.
    drafted : int
        Tokens that were sent to be judged.
    accepted, resampled : int
        Of the judged ones; after a rejection the rest of a round is void.
    bytes_up, bytes_down : int
        Of the messages, without what transport and IP put around them.
    seconds : float
        From the beginning of each text to its last token.
    reason : str
        Why the last tokens came as they did: the planner's line.
    """

    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    resampled: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    reason: str = ""

    @property
    def acceptance_rate(self) -> float:
        """Accepted tokens per token that the cloud judged."""
        return self.accepted / max(1, self.accepted + self.resampled)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of text per second."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def add(self, step: Step) -> None:
        """Account for a step."""
        self.tokens += len(step.tokens)
        self.drafted += step.drafted
        self.accepted += step.accepted
        self.resampled += step.accepted < step.drafted
        self.bytes_up += step.bytes_up
        self.bytes_down += step.bytes_down
        self.reason = step.reason


class Edge:
    """A draft model that writes texts with a cloud's target model.

    The texts are distributed as the target model's own, whatever the draft model is
    and whatever the link does; only how fast they come depends on these.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The draft model, a decoder whose cache can be rolled back, on any device.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        Both models'. By its fingerprint the cloud makes sure that it is; logits that
        pad a vocabulary beyond it are cropped.
    settings : sequence of Setting, optional
        What the planner may choose from, 1 to 4. If None, `default_settings`.
    planner : Planner or FixedPlan, optional
        If None, a `Planner` of the edge's own, which learns from text to text.
    rng : numpy.random.Generator, optional
        Draws the drafted tokens. If None, one with a fresh seed.

    Attributes
    ----------
    model
        As given.
    vocab_size : int
        V.
    stop : frozenset of int
        The model's own stop tokens.
    metrics : Metrics
        Over all texts so far.
    """

    def __init__(
        self,
        model: HFModel,
        tokenizer: HFTokenizer | None = None,
        *,
        settings: Sequence[Setting] | None = None,
        planner: Planning | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.model = model
        self.vocab_size = vocab_size(model, tokenizer)
        self.stop = stop_tokens(model, tokenizer)
        self.metrics = Metrics()
        self._fingerprint = (
            b"" if tokenizer is None else tokenizer_fingerprint(tokenizer)
        )
        self._settings = settings or default_settings(self.vocab_size)
        self._draft = CachedModel(model, self.vocab_size)
        self._rng = np.random.default_rng() if rng is None else rng
        self._given_planner = planner
        self._planners: dict[tuple[Sampling, int], Planning] = {}

    def generate(
        self,
        prompt: Sequence[int],
        link: Link | Callable[[], Link],
        *,
        max_tokens: int,
        sampling: Sampling | None = None,
        stop: Collection[int] | None = None,
    ) -> Generator[Step, None, None]:
        """Continue a text.

        Parameters
        ----------
        prompt : sequence of int
            Token ids, at least one.
        link : Link or callable
            A link to the cloud, or what makes one. From what makes one the text
            survives a link that breaks. The link is closed at the end.
        max_tokens : int
            Where the text ends at the latest.
        sampling : Sampling, optional
            Of the target model; the draft model takes the same temperature. If None,
            temperature 1 and no truncation.
        stop : collection of int, optional
            Tokens that end the text, as its last one. If None, the model's own.

        Yields
        ------
        Step
            As soon as its tokens are verified. `metrics` include it.

        Raises
        ------
        RefusalError
            The cloud refuses the session and says why.
        LinkError
            There is no link, or no answer for too long.
        """
        sampling = Sampling() if sampling is None else sampling
        first = link() if callable(link) else link
        with contextlib.closing(first):
            session = EdgeSession(
                self._settings,
                prompt,
                rng=self._rng,
                sampling=sampling,
                tokenizer=self._fingerprint,
                stop=sorted(self.stop if stop is None else stop),
                max_message=first.max_message,
            )
            planner = self._planner(sampling, first.overhead)
            links = iter([first])
            connect = (lambda: next(links, None) or link()) if callable(link) else link
            began = time.monotonic() - self.metrics.seconds
            for step in generate(
                session, self._draft, connect, planner, max_tokens=max_tokens
            ):
                self.metrics.add(step)
                self.metrics.seconds = time.monotonic() - began
                yield step

    def _planner(self, sampling: Sampling, overhead: int) -> Planning:
        if self._given_planner is not None:
            return self._given_planner
        key = sampling, overhead
        if key not in self._planners:
            self._planners[key] = Planner(
                self._settings, sampling=sampling, overhead=overhead
            )
        return self._planners[key]


def default_settings(vocab_size: int, prior: sqs.Prior | None = None) -> list[Setting]:
    """Return settings from coarse to fine, for a planner to choose from."""
    return [
        Setting(sqs.Codec(vocab_size, resolution, prior=prior), sqs.TopK(k))
        for resolution, k in ((32, 16), (100, 64), (400, 128))
    ]


def custom_generate(
    model: HFModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    *,
    edge: Edge,
    link: Link | Callable[[], Link],
    **model_kwargs: Any,
) -> torch.Tensor | GenerateDecoderOnlyOutput:
    """Let transformers' ``generate`` write with a cloud.

    For ``model.generate(..., custom_generate=custom_generate, edge=edge, link=link)``,
    where `model` is the draft model; length, stop tokens, stopping criteria,
    temperature, ``top_k``, ``top_p`` and ``min_p`` are those of the call and of the
    model's ``generation_config``, as ever.

    Parameters
    ----------
    model, input_ids, logits_processor, stopping_criteria, generation_config, \
model_kwargs
        What ``generate`` hands to a decoding method.
    edge : Edge
        Of the same model.
    link : Link or callable
        As `Edge.generate` takes it.

    Raises
    ------
    ValueError
        If there is more than one text, padding, or a logits processor that the cloud
        can't apply.
    """
    _check_call(model, edge, input_ids, logits_processor, model_kwargs)
    stop = generation_config.eos_token_id
    steps = edge.generate(
        input_ids[0].tolist(),
        link,
        max_tokens=generation_config.max_length - input_ids.shape[1],
        sampling=_sampling(generation_config),
        stop=stop if isinstance(stop, list) else [] if stop is None else [stop],
    )
    text: torch.Tensor = input_ids
    for token in (token for step in steps for token in step.tokens):
        text = torch.cat([text, text.new_tensor([[token]])], dim=-1)
        if bool(torch.as_tensor(stopping_criteria(text, None)).all()):
            break
    steps.close()
    if generation_config.return_dict_in_generate:
        return GenerateDecoderOnlyOutput(sequences=cast(torch.LongTensor, text))
    return text


def _check_call(
    model: HFModel,
    edge: Edge,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    model_kwargs: dict[str, Any],
) -> None:
    """Refuse what a call of ``generate`` asks for and an edge can't give."""
    if edge.model is not model:
        raise ValueError("the edge is one of another model")
    if input_ids.shape[0] != 1:
        raise ValueError(f"expected one text, got {input_ids.shape[0]}")
    mask = model_kwargs.get("attention_mask")
    if mask is not None and not bool(mask.all()):
        raise ValueError("expected a text without padding")
    unknown = [p for p in logits_processor if not isinstance(p, KNOWN_WARPERS)]
    if unknown:
        names = ", ".join(sorted({type(processor).__name__ for processor in unknown}))
        raise ValueError(f"the cloud can't apply {names} to the target's logits")


def _sampling(config: GenerationConfig) -> Sampling:
    if not config.do_sample:
        return Sampling(temperature=0)
    return Sampling(
        temperature=1.0 if config.temperature is None else config.temperature,
        top_k=config.top_k or 0,
        top_p=1.0 if config.top_p is None else config.top_p,
        min_p=config.min_p or 0.0,
    )
