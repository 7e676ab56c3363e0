"""A file of a teacher's distributions in TRL's trainer of a teacher on a server."""

from typing import Any

import datasets
import numpy as np
import trl
from trl.experimental.server_distillation import ServerDistillationTrainer

from sqs_codec import distill

__all__ = ["StoredDistillationTrainer", "TeacherClient", "as_completions"]

VERSION = "1.16"
if not trl.__version__.startswith(VERSION + "."):
    raise ImportError(
        f"sqs_codec.trainers.trl changes the trainer of trl {VERSION} inside, and this "
        f"is trl {trl.__version__}: pip install 'trl=={VERSION}.*'"
    )


def as_completions(data: distill.Dataset) -> datasets.Dataset:
    """Return the texts of a file as columns ``prompt`` and ``completion`` of token ids.

    A completion is a run of tokens that the file has distributions of, after a prompt
    of all that is before: a chat is there once for each answer. What would follow the
    last token is left out, as TRL compares what has a token alone.
    """
    prompts, completions = [], []
    for tokens, places, *_ in data:
        own = places[places < len(tokens) - 1]
        for run in np.split(own, np.flatnonzero(np.diff(own) > 1) + 1):
            if run.size:
                prompts.append(tokens[: run[0] + 1])
                completions.append(tokens[run + 1])
    return datasets.Dataset.from_dict({"prompt": prompts, "completion": completions})


class TeacherClient:
    """What TRL's client of a teacher's server is to its trainer, with a file."""

    def __init__(self, data: distill.Dataset) -> None:
        self._lookup, self._header = distill.Lookup(data), data.header

    def get_sequence_logprobs(
        self,
        sequences: list[list[int]],
        prompt_lengths: list[int],
        top_logprobs: int,
        temperature: float,
    ) -> dict[str, list[Any]]:
        """Return lists of the tokens after each prompt, as TRL's client does.

        Raises
        ------
        distill.MissError
            The file has no text that begins so.
        ValueError
            A token has no distribution, a row has more than `top_logprobs` tokens, or
            the temperature isn't the file's.
        """
        if temperature != self._header.temperature:
            raise ValueError(
                f"temperature must be that of the file, {self._header.temperature:g}, "
                f"got {temperature:g}"
            )
        asked = zip(sequences, prompt_lengths, strict=True)
        found = [self._score(*one, top_logprobs) for one in asked]
        return {key: [one[key] for one in found] for key in found[0]}

    def _score(self, tokens: list[int], start: int, k: int) -> dict[str, list[Any]]:
        text = self._lookup.find(tokens)
        places = np.arange(start, len(tokens)) - 1
        absent = places[~np.isin(places, text.places)]
        if absent.size:  # TRL would count its loss as 0
            raise ValueError(
                f"no distribution is stored of the token at position {absent[0] + 1}, "
                f"where the prompt has {start}: as_completions() has prompts that fit"
            )
        first = int(np.searchsorted(text.places, start - 1))
        rows = text.rows[first : first + len(places)]
        try:
            ids, logprobs = distill.top_lists(rows, k, tail=text.tail)
        except ValueError as error:
            raise ValueError(f"loss_top_k is too small: {error}") from None
        logprobs[logprobs == distill.NOTHING] = -np.inf  # TRL leaves these out
        own = np.array(tokens[start:])[:, None]
        actual = np.where(ids == own, logprobs, -np.inf).max(-1, keepdims=True)
        return {
            "logprobs": logprobs.tolist(),
            "logprob_token_ids": ids.tolist(),
            "actual_logprobs": actual.tolist(),
            "actual_token_ids": own.tolist(),
        }


class StoredDistillationTrainer(ServerDistillationTrainer):  # type: ignore[misc]
    """TRL's trainer with completions of the data set, where the student writes none.

    Parameters
    ----------
    args : trl.experimental.server_distillation.ServerDistillationConfig
        With ``beta=0``, the file's temperature and ``loss_top_k`` of a row or more.
    teacher_client : TeacherClient, optional
        By default TRL's own, of ``args.teacher_model_server_url``, which wants vLLM to
        be installed.
    **others
        As TRL takes them. A data set is as `as_completions` makes it.
    """

    def __init__(
        self, model: Any, args: Any, *, teacher_client: Any = None, **others: Any
    ) -> None:
        if args.beta or not args.loss_add_tail:
            raise ValueError(
                "beta must be 0 and loss_add_tail True, or a student learns something "
                f"else, got {args.beta:g} and {args.loss_add_tail}"
            )
        if teacher_client is None:
            super().__init__(model, args, **others)
        else:  # past what looks for a server
            super(ServerDistillationTrainer, self).__init__(model, None, args, **others)
            self.loss_top_k, self.loss_add_tail = args.loss_top_k, True
            self.teacher_client = teacher_client

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        self._completions = [one["completion"] for one in inputs]
        return super()._generate_and_score_completions(inputs)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[Any], None, Any]:
        return prompts, None, {}

    def _generate_single_turn(self, *_: Any, **others: Any) -> list[Any]:
        return self._completions
