"""The messages of a session (`docs/protocol.md`). Parsing only raises WireError."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NoReturn, TypeVar

import numpy as np

from sqs_codec._base import checks
from sqs_codec._base.words import shown
from sqs_codec.system._base import protocol
from sqs_codec.system._base.protocol import HELLO, ROUND_HEAD

PROTOCOL = 1  # version; after the first release it rises with every change
LEVELS = 16  # number of levels of probability in a hint
NUMBERS = 128  # round numbers are sent modulo this
MOST_NUMBER = 1 << 62  # largest round number in a welcome; later ones fit a varint
SESSION_BYTES = 16
SEED_BYTES = 16
TOKENIZER_BYTES = 8
INSTANCE_BYTES = 4

_WELCOME = 1
_CONTEXT = _HAVE = 2
_HELD = 0x20  # flag of a context: hold the session's place
_GENERATE = _TOKENS = 3
_END = _NEED = 4
_REFUSED = 5
_HINT = 6

_ROUND_BIT = 0x80
_NEED_HELLO, _NEED_CONTEXT = 1, 2
_MAX_VARINT = 9  # maximum bytes of a varint: 63 bits


class WireError(ValueError):
    """A message breaks the protocol; the error names the rule."""


# Messages to the cloud


@dataclass(frozen=True)
class Hello:
    """Parameters of a session; the first message on every link."""

    session: bytes
    seed: bytes  # key of the session's random numbers
    codecs: tuple[Mapping[str, Any], ...]  # configs, with fingerprints in hex
    tokenizer: bytes
    sampling: Mapping[str, Any]
    stop: tuple[int, ...]
    max_message: int

    def to_bytes(self) -> bytes:
        return _as_json(HELLO, {"protocol": PROTOCOL, **asdict(self)})


@dataclass(frozen=True)
class RoundMessage:
    """A drafted round."""

    number: int  # modulo 128
    base: int  # tokens of the text before the round, modulo 2^16
    setting: int
    packet: bytes

    def to_bytes(self) -> bytes:
        head = _ROUND_BIT | self.number % NUMBERS, *divmod(self.base & 0xFFFF, 256)
        return bytes([*head, self.setting]) + self.packet


@dataclass(frozen=True)
class Context:
    """A part of the text before round `number`."""

    instance: bytes  # the cloud that it is for
    number: int
    drawn: int  # the number that chooses the round's random numbers
    epoch: int  # number of replaced texts, for shared random numbers
    shared: int  # length of the beginning that the cloud's present text shares
    start: int  # position of `tokens` in the new text
    total: int  # length of the new text
    tokens: list[int]
    held: bool = False  # whether to hold the session's place if the link breaks

    def to_bytes(self, vocab_size: int) -> bytes:
        head = self.number, self.drawn, self.epoch, self.shared, self.start, self.total
        tokens = _from_tokens(self.tokens, vocab_size)
        kind = _CONTEXT + _HELD * self.held
        return bytes([kind]) + self.instance + _varints(*head) + tokens

    @property
    def end(self) -> int:
        """Position in the new text where the tokens end."""
        return self.start + len(self.tokens)

    def is_of(self, other: Context) -> bool:
        """Tell whether both are parts of one text."""
        return replace(self, start=0, tokens=[]) == replace(other, start=0, tokens=[])

    def add(self, other: Context) -> None:
        """Append the new tokens of another part, unless there is a gap."""
        if other.start <= self.end:
            self.tokens.extend(other.tokens[self.end - other.start :])


@dataclass(frozen=True)
class Generate:
    """A round of `n` tokens that the cloud decodes, with shared random numbers."""

    number: int
    base: int
    n: int
    have: int  # number of tokens that the edge has received
    together: int = 1  # tokens per message, except for the last

    def to_bytes(self) -> bytes:
        fields = self.number, self.base, self.n, self.have, self.together
        return bytes([_GENERATE]) + _varints(*fields)


@dataclass(frozen=True)
class Branch:
    """Predicted consecutive tokens in a hint."""

    hash: int  # of the tokens before it
    first: int  # level of the first token: level n is a probability of (n + 1/2) / 16
    later: int  # level of each later token
    tokens: tuple[int, ...]

    def chances(self) -> tuple[float, ...]:
        first, later = (self.first + 0.5) / LEVELS, (self.later + 0.5) / LEVELS
        return (first, *[later] * (len(self.tokens) - 1))


@dataclass(frozen=True)
class Hint:
    """Predicted tokens of round `number`, which the cloud decodes."""

    number: int
    serial: int  # serial number in the session, modulo 128
    position: int  # position in the text of the branches' first token
    branches: tuple[Branch, ...]  # of equal length

    def to_bytes(self, vocab_size: int) -> bytes:
        length = len(self.branches[0].tokens)
        head = _varints(self.number, self.serial, self.position, length)
        parts = [bytes([_HINT]), head]
        for branch in self.branches:
            parts.append(bytes([branch.hash, branch.first * LEVELS + branch.later]))
            parts.append(_from_tokens(branch.tokens, vocab_size))
        return b"".join(parts)


@dataclass(frozen=True)
class End:
    """The edge ends the session."""

    def to_bytes(self) -> bytes:
        return bytes([_END])


# Messages to the edge


@dataclass(frozen=True)
class Limits:
    """A cloud's limits for one session.

    Attributes
    ----------
    max_text : int
        Maximum tokens of a text, including the prompt.
    max_message : int
        Maximum bytes of a message, at least the 4,096 of a round.
    """

    max_text: int = 4096
    max_message: int = protocol.MAX_MESSAGE

    def __post_init__(self) -> None:
        for name, least in (("max_text", 2), ("max_message", protocol.ROUND_BYTES)):
            value = checks.in_range(name, getattr(self, name), least)
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Welcome:
    """The cloud's answer to a hello."""

    instance: bytes
    limits: Limits
    number: int  # number of the next round
    length: int  # length of the cloud's text
    steps: Mapping[int, float] | None  # milliseconds of a forward pass by tokens

    def to_bytes(self) -> bytes:
        return _as_json(_WELCOME, asdict(self))


@dataclass(frozen=True)
class Answer:
    """The verdict on a round."""

    number: int
    accepted: int
    token: int

    def to_bytes(self, vocab_size: int) -> bytes:
        value = self.accepted * vocab_size + self.token
        return bytes([_ROUND_BIT | self.number % NUMBERS]) + value.to_bytes(3, "big")


@dataclass(frozen=True)
class Have:
    """The cloud's progress with a text."""

    instance: bytes
    number: int
    count: int  # a token counts when it arrives, and again when the target reads it

    def to_bytes(self) -> bytes:
        return bytes([_HAVE]) + self.instance + _varints(self.number, self.count)


@dataclass(frozen=True)
class Tokens:
    """Tokens that the cloud decoded."""

    number: int
    heard: int  # serial number of the last hint received; 0 for none
    offset: int  # position of the tokens in their round
    tokens: list[int]

    def to_bytes(self, vocab_size: int) -> bytes:
        head = _varints(self.number, self.heard, self.offset)
        return bytes([_TOKENS]) + head + _from_tokens(self.tokens, vocab_size)


@dataclass(frozen=True)
class Need:
    """The cloud lacks the session, or the text of a round."""

    instance: bytes | None  # the cloud that lacks the text; None: it lacks the session

    def to_bytes(self) -> bytes:
        if self.instance is None:
            return bytes([_NEED, _NEED_HELLO])
        return bytes([_NEED, _NEED_CONTEXT]) + self.instance


@dataclass(frozen=True)
class Refusal:
    """The cloud ends the session, with a reason."""

    reason: str

    def to_bytes(self) -> bytes:
        """Return the message; a long reason is cut."""
        reason = self.reason.encode(errors="replace")[: protocol.MAX_REASON]
        return bytes([_REFUSED]) + reason.decode(errors="ignore").encode()


Message = TypeVar("Message")
Up = Hello | RoundMessage | Context | Generate | Hint | End
Down = Welcome | Answer | Have | Tokens | Need | Refusal


def parse_up(message: bytes, vocab_size: int) -> Up:
    """Parse a message from an edge to a cloud with this vocabulary."""
    if message and message[0] & _ROUND_BIT:
        return _round(message)
    reader = _Reader(message)
    kind = reader.byte()
    readers: dict[int, Callable[[], Up]] = {
        HELLO: lambda: _hello(reader),
        _CONTEXT: lambda: _context(reader, vocab_size),
        _CONTEXT + _HELD: lambda: replace(_context(reader, vocab_size), held=True),
        _GENERATE: lambda: Generate(*reader.last_varints(5)),
        _HINT: lambda: _hint(reader, vocab_size),
        _END: lambda: reader.end(End()),
    }
    return _one_of(kind, readers)


def parse_down(message: bytes, vocab_size: int) -> Down:
    """Parse a message from a cloud with this vocabulary."""
    reader = _Reader(message)
    kind = reader.byte()
    if kind & _ROUND_BIT:
        value = reader.end(int.from_bytes(reader.take(3), "big"))
        return Answer(kind % NUMBERS, *divmod(value, vocab_size))
    readers: dict[int, Callable[[], Down]] = {
        _WELCOME: lambda: _welcome(reader),
        _HAVE: lambda: Have(reader.take(INSTANCE_BYTES), *reader.last_varints(2)),
        _TOKENS: lambda: _tokens_of(reader, vocab_size),
        _NEED: lambda: _need(reader),
        _REFUSED: lambda: Refusal(
            reader.rest()[: protocol.MAX_REASON].decode(errors="replace")
        ),
    }
    return _one_of(kind, readers)


def parse_hello(message: bytes) -> Hello | None:
    """Parse a hello; None for any other message."""
    reader = _Reader(message)
    return _hello(reader) if reader.byte() == HELLO else None


def _one_of(kind: int, readers: Mapping[int, Callable[[], Message]]) -> Message:
    if kind not in readers:
        raise WireError(f"no message begins with byte {kind:#04x}")
    return readers[kind]()


def _round(message: bytes) -> RoundMessage:
    if not ROUND_HEAD < len(message) <= protocol.ROUND_BYTES:
        raise WireError(
            f"a round's message must have {ROUND_HEAD + 1} to {protocol.ROUND_BYTES} "
            f"bytes, got {len(message)}"
        )
    first, high, low, setting = message[:ROUND_HEAD]
    if setting >= protocol.MAX_SETTINGS:
        raise WireError(
            f"a setting must be below {protocol.MAX_SETTINGS}, got {setting}"
        )
    return RoundMessage(first % NUMBERS, high << 8 | low, setting, message[ROUND_HEAD:])


def _context(reader: _Reader, vocab_size: int) -> Context:
    instance = reader.take(INSTANCE_BYTES)
    number, drawn, epoch, shared, start, total = (reader.varint() for _ in range(6))
    tokens = _tokens(reader.rest(), vocab_size)
    if drawn > number:
        raise WireError(f"round {number} can't use the later random numbers {drawn}")
    if not shared <= start <= start + len(tokens) <= total:
        raise WireError(
            f"a context of tokens {start} to {start + len(tokens)} must lie between "
            f"{shared} (shared) and {total} (the text's length)"
        )
    if not tokens and shared < total:
        raise WireError(f"a context of {shared} to {total} must have tokens, got none")
    return Context(instance, number, drawn, epoch, shared, start, total, tokens)


def _hint(reader: _Reader, vocab_size: int) -> Hint:
    number, serial, position, length = (reader.varint() for _ in range(4))
    data = reader.rest()
    size = 2 + length * token_bytes(vocab_size)
    if not 1 <= length <= protocol.MAX_HINTED:
        raise WireError(
            f"a hint's branches must have 1 to {protocol.MAX_HINTED} tokens, "
            f"got {length}"
        )
    count, rest = divmod(len(data), size)
    if rest or not 1 <= count <= protocol.MAX_BRANCHES:
        raise WireError(
            f"a hint must have 1 to {protocol.MAX_BRANCHES} branches of {size} bytes, "
            f"got {len(data)} bytes"
        )
    branches = []
    for at in range(0, len(data), size):
        first, later = divmod(data[at + 1], LEVELS)
        tokens = _tokens(data[at + 2 : at + size], vocab_size)
        branches.append(Branch(data[at], first, later, tuple(tokens)))
    return Hint(number, serial, position, tuple(branches))


def _tokens_of(reader: _Reader, vocab_size: int) -> Tokens:
    number, heard, offset = (reader.varint() for _ in range(3))
    return Tokens(number, heard, offset, _tokens(reader.rest(), vocab_size))


def _need(reader: _Reader) -> Need:
    flags = reader.byte()
    if flags == _NEED_HELLO:
        return reader.end(Need(None))
    if flags != _NEED_CONTEXT:
        raise WireError(f"a NEED must have flag 1 or 2, got {flags:#04x}")
    return reader.end(Need(reader.take(INSTANCE_BYTES)))


def _hello(reader: _Reader) -> Hello:
    content = _from_json("hello", reader.rest())
    version = content.get("protocol")
    if type(version) is not int or version != PROTOCOL:
        raise WireError(
            f"the edge has protocol version {_short(version)}, the cloud {PROTOCOL}: "
            f"install the same version of sqs-codec at both ends"
        )
    wanted = {"protocol", *(field.name for field in fields(Hello))}
    _check_keys("hello", content, wanted)
    codecs = _typed("codecs", content["codecs"], list)
    if not 1 <= len(codecs) <= protocol.MAX_SETTINGS:
        raise WireError(
            f"a hello must have 1 to {protocol.MAX_SETTINGS} codecs, got {len(codecs)}"
        )
    stop = _typed("stop", content["stop"], list)
    if len(stop) > protocol.MAX_STOP:
        raise WireError(
            f"a hello may have {protocol.MAX_STOP} stop tokens, got {len(stop)}"
        )
    return Hello(
        session=_hex("session", content["session"], SESSION_BYTES),
        seed=_hex("seed", content["seed"], SEED_BYTES),
        codecs=tuple(_typed("codecs", codec, dict) for codec in codecs),
        tokenizer=_hex("tokenizer", content["tokenizer"], 0, TOKENIZER_BYTES),
        sampling=_typed("sampling", content["sampling"], dict),
        stop=tuple(_whole("stop", token) for token in stop),
        max_message=_whole("max_message", content["max_message"], protocol.MIN_MESSAGE),
    )


def _welcome(reader: _Reader) -> Welcome:
    content = _from_json("welcome", reader.rest())
    _check_keys("welcome", content, {field.name for field in fields(Welcome)})
    limits = _typed("limits", content["limits"], dict)
    _check_keys("limits", limits, {field.name for field in fields(Limits)})
    try:
        taken = Limits(**{name: _whole(name, n) for name, n in limits.items()})
    except ValueError as error:
        raise WireError(f"the cloud's limits are invalid: {error}") from None
    return Welcome(
        instance=_hex("instance", content["instance"], INSTANCE_BYTES),
        limits=taken,
        number=_whole("number", content["number"], most=MOST_NUMBER),
        length=_whole("length", content["length"]),
        steps=_steps(content["steps"]),
    )


def _steps(content: object) -> dict[int, float] | None:
    if content is None:
        return None
    steps = {}
    for key, time in _typed("steps", content, dict).items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10 and int(key)):
            raise WireError(f"keys of steps must count tokens, got {_short(key)}")
        number = isinstance(time, (int, float)) and not isinstance(time, bool)
        if not number or not 0 <= time < 1e9:
            raise WireError(f"values of steps must be times, got {_short(time)}")
        steps[int(key)] = float(time)
    return steps


class _Reader:
    """Reads a message from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise WireError(f"a message of {len(self._data)} bytes ends inside a field")
        self._at += size
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        """Return an integer: seven bits per byte, low bits first, no padding."""
        value = 0
        for i in range(_MAX_VARINT):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if byte == 0 and i:
                    break
                return value
        raise WireError("a varint has too many bytes")

    def last_varints(self, count: int) -> list[int]:
        """Return the integers at the end of the message."""
        return self.end([self.varint() for _ in range(count)])

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def end(self, value: Message) -> Message:
        """Return a value after checking that the message ends here."""
        if self._at < len(self._data):
            raise WireError(
                f"a message ends after {self._at} bytes, got {len(self._data)}"
            )
        return value


def _varints(*values: int) -> bytes:
    data = bytearray()
    for value in values:
        while value >= 0x80:
            data.append(value & 0x7F | 0x80)
            value >>= 7
        data.append(value)
    return bytes(data)


def token_bytes(vocab_size: int) -> int:
    """Return the bytes per token in a context."""
    return 2 if vocab_size <= 1 << 16 else 3


def _from_tokens(tokens: Sequence[int], vocab_size: int) -> bytes:
    width = token_bytes(vocab_size)
    return b"".join([token.to_bytes(width, "big") for token in tokens])


def _tokens(data: bytes, vocab_size: int) -> list[int]:
    width = token_bytes(vocab_size)
    if len(data) % width:
        raise WireError(f"tokens must take {width} bytes each, got {len(data)} bytes")
    parts = np.frombuffer(data, np.uint8).reshape(-1, width).astype(np.int64)
    tokens = parts @ (1 << 8 * np.arange(width - 1, -1, -1))
    if tokens.size and tokens.max() >= vocab_size:
        raise WireError(
            f"token {tokens.max()} is outside the vocabulary of {vocab_size}"
        )
    return [int(token) for token in tokens]


def _as_json(kind: int, content: Mapping[str, Any]) -> bytes:
    """Return a message in JSON, with bytes in hex."""
    text = json.dumps(content, separators=(",", ":"), default=bytes.hex)
    return bytes([kind]) + text.encode()


def _from_json(name: str, data: bytes) -> dict[str, Any]:
    if data.count(b"[") + data.count(b"{") > protocol.MAX_NESTED:
        raise WireError(
            f"a {name} may have {protocol.MAX_NESTED} arrays and objects at most"
        )
    try:
        content = json.loads(
            data.decode(), parse_constant=_no_number, object_pairs_hook=_object
        )
    except ValueError as error:
        raise WireError(f"a {name} must be JSON: {shown(str(error), 100)}") from None
    return _typed(name, content, dict)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has the key {_short(key)} twice")
        found[key] = value
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def _check_keys(name: str, content: Mapping[str, Any], wanted: set[str]) -> None:
    if set(content) != wanted:
        raise WireError(
            f"{name} must have the keys {sorted(wanted)}, got {_short(sorted(content))}"
        )


def _typed(name: str, value: object, kind: type[Message]) -> Message:
    if not isinstance(value, kind):
        raise WireError(f"{name}: expected a {kind.__name__}, got {_short(value)}")
    return value


def _whole(name: str, value: object, least: int = 0, most: int = (1 << 63) - 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise WireError(
            f"{name}: expected an integer from {least} to {most}, got {_short(value)}"
        )
    return value


def _hex(name: str, value: object, *sizes: int) -> bytes:
    text = _typed(name, value, str)
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = None
    if data is None or len(data) not in sizes or data.hex() != text:
        raise WireError(
            f"{name} must be {' or '.join(map(str, sizes))} bytes in hex, "
            f"got {_short(text)}"
        )
    return data


def _short(value: object) -> str:
    """Return a value as text that is short enough for an error message."""
    return shown(repr(value), 97)
