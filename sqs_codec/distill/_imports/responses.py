"""JSON responses of vLLM and of servers with OpenAI's API."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from sqs_codec.distill._header import damage
from sqs_codec.distill._imports.names import Names
from sqs_codec.distill._writer import Writer

T = TypeVar("T")

Listed = dict[int, float]
"""Log-probabilities by id."""

MAX_ID = 2**32 - 1

NO_PROMPT = (
    "answers have no prompt_token_ids: the student will see them without the prompt "
    "that the teacher saw"
)


class ListedText(NamedTuple):
    """A text, its top-k lists, and how often each note applies to it."""

    tokens: list[int]
    first: int  # list i belongs to ``tokens[first + i]``
    token_ids: list[list[int]]
    logprobs: list[list[float]]
    notes: dict[str, int]


Place = tuple[str, Iterator[ListedText]]
"""A place in a file, for messages, and its texts. They are parsed during iteration,
whose ValueErrors don't name the place."""


def import_lists(places: Iterable[Place], writer: Writer) -> Counter[str]:
    """Write texts with their lists; return the notes on them, counted.

    A ValueError names the place. Earlier texts are written, and skipped on resuming.
    """
    notes: Counter[str] = Counter()
    done = len(writer)
    quantize = writer.header.codec.quantize_top_logprobs_rows
    for place, texts in places:
        with damage(place):
            for text in texts:
                notes.update(text.notes)
                if not len(text.token_ids):
                    notes["answers without a usable list were left out"] += 1
                elif done:
                    done -= 1
                else:
                    rows = quantize(text.token_ids, text.logprobs)
                    at = text.first - 1 + np.arange(len(rows))
                    writer.write(text.tokens, rows, at)
    return notes


def read_responses(path: str | os.PathLike[str], names: Names) -> Iterator[Place]:
    """Read a file with JSON lines, one array of records, or one record.

    A record is a response of ``/v1/completions`` or ``/v1/chat/completions``, a line of
    a batch of these, or a RequestOutput of vLLM's Python API. A record, or a choice in
    it, may have ``prompt_token_ids``. Otherwise the answer is a text without a prompt,
    and its first list is left out, because no token precedes it.
    """
    for number, record in enumerate(_records(path), 1):
        yield f"{path}: record {number}", _texts(record, names)


def _records(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Return the records of a file, each read when it is asked for."""
    is_first = True
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            with damage(f"{path}: line {number}"):
                try:
                    record = _load(line)
                except ValueError:
                    if not is_first:
                        raise
                    record = _load(line + file.read())  # a record of several lines
            yield from record if isinstance(record, list) else [record]
            is_first = False


def _load(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def _texts(record: Any, names: Names) -> Iterator[ListedText]:
    record = _expect(dict, "it", record)
    response = _expect(dict, "response", record.get("response", record))
    body = _expect(dict, "body", response.get("body", response))
    choices = body.get("choices", body.get("outputs"))
    if choices is None:
        raise ValueError("it is not a response: it has no choices and no outputs")
    for i, choice in enumerate(_expect(list, "choices", choices)):
        with damage(f"choice {i}"):
            choice = _expect(dict, "it", choice)
            text = _text(choice, (choice, body, record), names)
        yield text


def _text(
    choice: dict[str, Any], places: tuple[dict[str, Any], ...], names: Names
) -> ListedText:
    """Return the text of a choice; any of the places may have its prompt."""
    prompt, of_prompt = (
        next((place[name] for place in places if place.get(name)), None)
        for name in ("prompt_token_ids", "prompt_logprobs")
    )
    if choice.get("logprobs") is None and of_prompt is None:
        raise ValueError("it has no logprobs and no prompt_logprobs")
    tokens, lists = _answer(choice, names)
    # Otherwise, it begins with an echo of the prompt.
    is_answer = not lists or lists[0] is not None
    if is_answer:
        ids = _ids("prompt_token_ids", prompt)
        before: list[Listed | None] = [None] * len(ids)
        if of_prompt is not None:
            before = _by_id("prompt_logprobs", of_prompt)
            _pair("prompt_token_ids", ids, "prompt_logprobs", before)
        tokens, lists = ids + tokens, before + lists
    first = next((i for i, one in enumerate(lists) if i and one), len(lists))
    found = [one for one in lists[first:] if one]
    if first + len(found) < len(lists):
        raise ValueError(f"token {lists.index(None, first)} has no list")
    ids_, logprobs = [list(one) for one in found], [list(one.values()) for one in found]
    notes = {NO_PROMPT: 1} if is_answer and not prompt else {}
    return ListedText(tokens, first, ids_, logprobs, notes)


def _answer(
    choice: dict[str, Any], names: Names
) -> tuple[list[int], list[Listed | None]]:
    found, ids = choice.get("logprobs"), choice.get("token_ids")
    if found is None:
        return [], []
    if not isinstance(found, dict) or "start_indices" in found:
        tokens, lists = _ids("token_ids", ids), _by_id("logprobs", found)
        _pair("token_ids", tokens, "logprobs", lists)
        return tokens, lists
    if "content" in found:
        tokens, lists = _of_chat(found["content"], names)
    else:
        tokens, lists = _of_completion(found, names)
    if ids is not None and tokens[len(tokens) - len(ids) :] != ids:
        raise ValueError("its token_ids are not the tokens of its logprobs")
    return tokens, lists


def _of_chat(content: Any, names: Names) -> tuple[list[int], list[Listed | None]]:
    tokens: list[int] = []
    lists: list[Listed | None] = []
    for i, entry in enumerate(_expect(list, "content", content or [])):
        with damage(f"content[{i}]"):
            top = _expect(dict, "it", entry).get("top_logprobs")
            if not top:
                raise ValueError("it has no top_logprobs: request some")
            # The sampled token may not be one of the top ones.
            entries = [entry, *_expect(list, "top_logprobs", top)]
            ids = [_entry_id(one, names) for one in entries]
            tokens.append(ids[0])
            lists.append(_listed(zip(ids, map(_logprob, entries), strict=True)))
    return tokens, lists


def _entry_id(entry: Any, names: Names) -> int:
    name = _expect(str, "token", _expect(dict, "an entry", entry).get("token"))
    data = entry.get("bytes")
    return names.find(name, None if data is None else _ids("bytes", data, 255))


def _of_completion(
    found: dict[str, Any], names: Names
) -> tuple[list[int], list[Listed | None]]:
    spelled = _expect(list, "tokens", found.get("tokens"))
    lists = _lists("top_logprobs", found.get("top_logprobs"), names.find)
    _pair("tokens", spelled, "top_logprobs", lists)
    return [names.find(_expect(str, "a token", one)) for one in spelled], lists


def _by_id(name: str, found: Any) -> list[Listed | None]:
    """Return lists in one of the forms of vLLM's Python API: dictionaries, or flat."""
    if not isinstance(found, dict):
        return _lists(name, found, _id)
    ids, starts, ends = (
        _ids(field, found.get(field))
        for field in ("token_ids", "start_indices", "end_indices")
    )
    logprobs = _expect(list, "logprobs", found.get("logprobs"))
    _pair("token_ids", ids, "logprobs", logprobs)
    _pair("start_indices", starts, "end_indices", ends)
    flat = list(zip(ids, map(_logprob, logprobs), strict=True))
    return [_listed(flat[i:j]) for i, j in zip(starts, ends, strict=True)]


def _lists(name: str, found: Any, find: Callable[[str], int]) -> list[Listed | None]:
    """Return lists given as dictionaries; None for missing ones."""
    lists: list[Listed | None] = []
    for i, one in enumerate(_expect(list, name, found)):
        with damage(f"{name}[{i}]"):
            items = _expect(dict, "it", one or {}).items()
            lists.append(_listed((find(key), _logprob(value)) for key, value in items))
    return lists


def _listed(pairs: Iterable[tuple[int, float]]) -> Listed | None:
    """Return a list with the most probable of several tokens with the same id."""
    found: Listed = {}
    for id_, logprob in pairs:
        found[id_] = max(found.get(id_, logprob), logprob)
    return found or None


def _logprob(value: Any) -> float:
    """Return a log-probability, given as a number or in an entry."""
    if isinstance(value, dict):
        value = value.get("logprob")
    if type(value) is float or (type(value) is int and abs(value) < 1 << 53):
        return float(value)
    raise ValueError(f"a logprob must be a number, got {value!r:.40}")


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError(f"{text!r} is not a token id")
    return int(text)


def _ids(name: str, value: Any, most: int = MAX_ID) -> list[int]:
    """Return a list of integers; empty for null."""
    ids = _expect(list, name, value or [])
    for i, id_ in enumerate(ids):
        if type(id_) is not int or not 0 <= id_ <= most:
            raise ValueError(f"{name}[{i}] must be an integer from 0 to {most}")
    return ids


def _pair(one: str, a: list[Any], other: str, b: list[Any]) -> None:
    if len(a) != len(b):
        raise ValueError(f"it has {len(a)} {one} but {len(b)} {other}")


def _expect(kind: type[T], name: str, value: Any) -> T:
    if not isinstance(value, kind):
        raise ValueError(
            f"{name} must be a {kind.__name__}, got {type(value).__name__}"
        )
    return value
