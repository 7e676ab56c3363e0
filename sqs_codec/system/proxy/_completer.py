"""Completions for several clients, each in a thread with a session of its own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from sqs_codec.system._base.chat import Tokenizer
from sqs_codec.system._base.protocol import MODES
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system._endpoint.errors import ApiError
from sqs_codec.system.edge import (
    Draft,
    Edge,
    FixedPlan,
    Hints,
    Mode,
    Planning,
    Prefer,
    RefusalError,
    ShapedLink,
    generate,
)
from sqs_codec.system.edge._metrics import EdgeMetrics
from sqs_codec.system.proxy._draft import GoneError, SharedDraft, Turns, link
from sqs_codec.system.proxy._request import Request
from sqs_codec.system.proxy._stops import Stops
from sqs_codec.system.session import EdgeSession, Limits, Link, LinkError, Setting

Origin = Literal["draft", "cloud"]
Seat = tuple[SharedDraft, Edge]  # writes one completion after another
WAIT = 0.5  # seconds that a request waits for a free seat before it is refused
LEAVING = 1.0  # seconds for completions, and then sessions, to end when it closes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """The text that a token adds to a completion."""

    text: str  # whole characters; may be empty
    origin: Origin  # "draft" for an accepted token of the draft
    figures: EdgeMetrics  # metrics of the request up to this token
    finish: str | None = None  # "stop" or "length" in a completion's last chunk
    index: int = 0  # of the completion, if the request is for several
    last: bool = False  # whether this is the request's last chunk


class Completer:
    """Writes completions for several clients with a cloud and a draft model.

    Parameters
    ----------
    tokenizer : Tokenizer
        The draft's tokenizer.
    connect : callable
        Makes a link to the cloud, or raises `LinkError`.
    server : str
        The cloud's address, for error messages.
    clients : int
        Maximum number of simultaneous completions.
    settings, modes, prefer
        As in `Edge`.
    patience : float
        As in `Edge.generate`.
    """

    def __init__(
        self,
        draft: Draft,
        tokenizer: Tokenizer,
        connect: Callable[[], Link],
        *,
        server: str,
        clients: int = 8,
        settings: Sequence[Setting] | None = None,
        modes: Collection[Mode] = MODES,
        prefer: Prefer = "speed",
        patience: float = 60.0,
    ) -> None:
        self._draft, self._tokenizer = draft, tokenizer
        self._connect, self._server = connect, server
        self._links = ThreadPoolExecutor(clients, "sqs-connect")
        self._settings = settings or Setting.defaults(draft.vocab_size)
        self.modes, self._prefer = modes, prefer
        self._patience = patience
        self._most = draft.n_ctx or Limits.max_text
        self._turns = Turns()
        self._free, self._taking = [self._seat(draft)], threading.Lock()
        self._seats = asyncio.Semaphore(clients)
        self._answers: set[Completion] = set()
        self._stopping = False

    def __repr__(self) -> str:
        return f"<Completer with {self._server}>"

    def _seat(self, draft: Draft) -> Seat:
        shared = SharedDraft(draft, self._turns)
        return shared, Edge(
            shared, settings=self._settings, modes=self.modes, prefer=self._prefer
        )

    def check(self) -> None:
        """Test the cloud with one token; raises the errors of `Edge.generate`."""
        with contextlib.closing(self._connect()) as link:
            session = EdgeSession(
                self._settings,
                [0],
                rng=np.random.default_rng(),
                tokenizer=self._tokenizer.fingerprint,
                max_message=link.max_message,
            )
            list(generate(session, self._draft, link, FixedPlan(0), max_tokens=1))
            assert session.limits is not None  # known since there is a token
            self._most = min(self._most, session.limits.max_text)

    async def write(self, request: Request) -> Completion:
        """Begin a completion; ApiError if there are too many, or while it stops."""
        if self._stopping:
            raise _stopped()
        try:
            await asyncio.wait_for(self._seats.acquire(), WAIT)
        except asyncio.TimeoutError:
            raise ApiError(
                "the endpoint already writes its maximum of simultaneous completions; "
                "try again later, or raise --clients",
                status=429,
                code="too_many_clients",
                retry_after=1,
            ) from None
        answer = Completion()
        self._answers.add(answer)
        given = request, answer
        threading.Thread(target=self._run, args=given, daemon=True).start()
        return answer

    async def close(self) -> None:
        """End all completions and sessions; tell the cloud if that is quick."""
        self._stopping = True
        for answer in self._answers:
            answer.put(_stopped())
            answer.close()
        if self._answers:
            await asyncio.wait([each.left for each in self._answers], timeout=LEAVING)
        for draft, _ in self._free:
            draft.begin(Future())
        if self._free:
            ends = [self._links.submit(edge.close) for _, edge in self._free]
            await asyncio.wait([*map(asyncio.wrap_future, ends)], timeout=LEAVING)

    def _run(self, request: Request, answer: Completion) -> None:
        seat: Seat | None = None
        end: Chunk | ApiError | None = None
        try:
            prompts = self._encode(request)
            seat = self._take(prompts[0])
            draft, edge = seat
            draft.begin(answer.gone)
            make = partial(self._connect_as, request)
            draft.connect = partial(link, self._links, make, answer.gone)
            for chunk in self._chunks(request, prompts, answer, edge):
                if chunk.last:
                    end = chunk
                else:
                    answer.put(chunk)
        except GoneError:
            pass
        except ApiError as error:
            end = error
        except (LinkError, RefusalError) as error:
            said = f"the cloud at {self._server}: {error}"
            end = ApiError(said, status=503, code="no_cloud", retry_after=5)
        except BaseException:  # a tokenizer's panic isn't an Exception
            log.exception("a completion failed")
            said = "the completion failed; see the endpoint's log"
            end = ApiError(said, status=500)
        finally:
            answer.call(self._leave, answer, seat)
            if end is not None:  # the client's next request finds the seat free
                answer.put(end)

    def _take(self, prompt: Sequence[int]) -> Seat:
        """Take the free seat with the longest common prefix, or make one."""
        with self._taking:
            if self._free:
                known = [common_length(draft.text, prompt) for draft, _ in self._free]
                return self._free.pop(known.index(max(known)))
        return self._seat(self._draft.twin())

    def _leave(self, answer: Completion, seat: Seat | None) -> None:
        self._answers.discard(answer)
        answer.left.set_result(None)
        self._free += [seat] if seat else []
        self._seats.release()

    def _check_length(self, tokens: int, request: Request) -> None:
        if tokens >= self._most:
            raise ApiError(
                f"the prompt has {tokens} tokens; prompt and completion together may "
                f"have {self._most}",
                code="context_length_exceeded",
                param="messages" if request.messages else "prompt",
            )

    def _chunks(
        self,
        request: Request,
        prompts: Sequence[Sequence[int]],
        answer: Completion,
        edge: Edge,
    ) -> Iterator[Chunk]:
        if not all(prompts):
            raise ApiError("the prompt has no tokens", param="prompt")
        self._check_length(max(map(len, prompts)), request)
        modes = self.modes if request.mode is None else [request.mode]
        if request.seed is not None and set(modes) == {"rounds"}:
            raise ApiError(
                "seed can't be used with rounds: the text also depends on the drafts",
                param="seed",
            )
        planner = None if request.mode is None else self._asked(request.mode)
        answer.prompt_tokens = sum(map(len, prompts))
        figures = EdgeMetrics()
        for i, prompt in enumerate(prompts):
            last = i == len(prompts) - 1
            for chunk in self._text(prompt, request, answer, edge, planner, figures):
                ends = last and chunk.finish is not None
                yield dataclasses.replace(chunk, index=i, last=ends)
            figures = chunk.figures

    def _asked(self, mode: Mode) -> Planning:
        """Return the plan for the mode that a client asks for."""
        if mode not in self.modes:
            raise ApiError(
                f"sqs.mode must be {' or '.join(self.modes)} here, got {mode}",
                param="sqs.mode",
            )
        setting = min(1, len(self._settings) - 1)  # the middle one of the defaults
        return {
            "alone": FixedPlan(0),
            "rounds": FixedPlan(setting=setting),
            "hints": FixedPlan(hints=Hints()),
        }[mode]

    def _connect_as(self, request: Request) -> Link:
        link = self._connect()
        return link if request.link is None else ShapedLink(link, *request.link)

    def _text(
        self,
        prompt: Sequence[int],
        request: Request,
        answer: Completion,
        edge: Edge,
        planner: Planning | None,
        before: EdgeMetrics,
    ) -> Iterator[Chunk]:
        room = self._most - len(prompt)
        assert isinstance(edge.draft, SharedDraft)
        way = edge.draft.link if request.link is None else partial(edge.draft.link)
        steps = edge.generate(
            prompt,
            way,  # the edge doesn't keep a partial's link for other completions
            max_tokens=min(room, request.max_tokens or room),
            sampling=request.sampling,
            seed=request.seed,
            planner=planner,
            patience=self._patience,
        )
        text, written = self._tokenizer.stream(prompt), [*prompt]
        edge.draft.text = written
        stops, token, shown, seconds = Stops(request.stop), -1, 0, 0.0

        def figures() -> EdgeMetrics:
            now, tokens = before + steps.metrics, before.tokens + shown
            return dataclasses.replace(now, tokens=tokens, seconds=seconds)

        with contextlib.closing(steps):
            for step in steps:
                written += step.tokens
                for i, token in enumerate(step.tokens):
                    shown, seconds = shown + 1, time.monotonic() - answer.began
                    said = stops.add(text.add([token]))
                    origin: Origin = "draft" if i < step.accepted else "cloud"
                    yield Chunk(said, origin, figures())
                    if stops.found:
                        break
                if stops.found:
                    break
        rest = "" if stops.found else stops.add(text.rest()) + stops.held
        stopped = stops.found or token in self._tokenizer.stop
        # These metrics include the end of the session.
        yield Chunk(rest, "cloud", figures(), "stop" if stopped else "length")

    def _encode(self, request: Request) -> list[list[int]]:
        if request.messages:
            # Refuse long messages before the work of filling in the template.
            said = (self._tokenizer.encode(m["content"]) for m in request.messages)
            self._check_length(sum(map(len, said)), request)
            return [self._encode_chat(request.messages)]
        prompts = [
            self._tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            for prompt in request.prompts
        ]
        most = self._draft.vocab_size - 1
        for prompt in prompts:
            if not all(0 <= token <= most for token in prompt):
                wrong = f"prompt must have token ids from 0 to {most}"
                raise ApiError(wrong, param="prompt")
        return prompts

    def _encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        if self._tokenizer.has_template:
            try:
                return self._tokenizer.encode_chat(messages)
            except ValueError as error:
                raise ApiError(str(error), param="messages") from error
        if len(messages) > 1 or messages[0]["role"] != "user":
            raise ApiError(
                "the model has no chat template; send a single user message",
                param="messages",
            )
        return self._tokenizer.encode(messages[0]["content"])


def _stopped() -> ApiError:
    said = "the endpoint is shutting down"
    return ApiError(said, status=503, code="stopping", retry_after=5)


class Completion:
    """A completion from a thread: `gone` is set by the client, `left` by the thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Chunk | ApiError] = asyncio.Queue()
        self.began = time.monotonic()
        self.prompt_tokens = 0  # until the first chunk
        self.gone, self.left = Future[None](), self._loop.create_future()

    def call(self, function: Callable[..., object], *given: object) -> None:
        """Call a function in the event loop, if that still runs."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *given)

    def put(self, found: Chunk | ApiError) -> None:
        self.call(self._queue.put_nowait, found)

    async def next(self) -> Chunk:
        found = await self._queue.get()
        if isinstance(found, ApiError):
            raise found
        return found

    def close(self) -> None:
        """End the completion: the client has left or has everything."""
        if not self.gone.done():
            self.gone.set_result(None)
