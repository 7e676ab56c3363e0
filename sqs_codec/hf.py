"""The codec as a logits processor of transformers (the extra ``[hf]``)."""

from sqs_codec._base.errors import needing

with needing("sqs_codec.hf", "hf"):
    import torch
    import transformers

import sqs_codec as sqs
from sqs_codec._base import checks
from sqs_codec.torch import to_dense
from sqs_codec.torch._quantize import quantize_row

__all__ = ["SparseLogitsProcessor"]


class SparseLogitsProcessor(transformers.LogitsProcessor):
    """Let a draft model sample from encoded and decoded distributions.

    The processor encodes each row of logits and returns the logarithm of the decoded
    distribution. In a single process, transformers' ``generate`` then shows the effect
    of the codec on a draft model's text, and its cost in bits.

    Parameters
    ----------
    codec : Codec
        Logits beyond its vocabulary, as models with padded vocabularies have, are
        masked.
    temperature : float
        The sampling temperature; replaces transformers' own.

    Attributes
    ----------
    drafted : int
        The number of packets.
    bits : int
        Their total size.

    Examples
    --------
    >>> import torch
    >>> from sqs_codec import Codec, TopK
    >>> processor = SparseLogitsProcessor(Codec(5, resolution=4), TopK(2))
    >>> processor(None, torch.tensor([[0.0, 1.0, 0.0, 2.0, 0.0]])).exp()
    tensor([[0.0000, 0.2500, 0.0000, 0.7500, 0.0000]])
    >>> processor.drafted, processor.bits
    (1, 8)
    """

    def __init__(
        self, codec: sqs.Codec, keep: sqs.Keep, *, temperature: float = 1.0
    ) -> None:
        checks.instance("codec", codec, sqs.Codec, "a Codec")
        checks.instance("keep", keep, sqs.Keep, "a Keep")
        self.codec = codec
        self.keep = keep
        self.temperature = checks.temperature(temperature)
        self.drafted = 0
        self.bits = 0
        self._state = keep.start()
        # The state after each position of the round, with the text's length there.
        self._states: list[tuple[int, float]] = []

    def __repr__(self) -> str:
        return (
            f"<SparseLogitsProcessor of {self.codec}, {self.keep}, temperature "
            f"{self.temperature:g}>"
        )

    def __call__(
        self, input_ids: torch.LongTensor | None, scores: torch.Tensor
    ) -> torch.Tensor:
        """Return the logarithm of the decoded distribution.

        Parameters
        ----------
        input_ids : torch.LongTensor of int64 [1, length] or None
            The text so far, which shows a rule that learns the verified positions.
        scores : torch.Tensor of float32 [1, at least V]
            The model's logits.
        """
        if scores.shape[0] != 1:
            raise ValueError(f"expected the logits of one text, got {scores.shape[0]}")
        length = 0 if input_ids is None else int(input_ids.shape[-1])
        self._roll_back(length)
        size = self.codec.vocab_size
        logits = scores[0, :size]
        keep, state = self.keep, self._state
        q = quantize_row(self.codec, logits, keep, self.temperature, state=state)
        packet = self.codec.encode(q)
        self.drafted += 1
        self.bits += 8 * len(packet)
        if q.dropped_mass is not None:  # the rule learns
            self._state = keep.next(state, q.dropped_mass)
        self._states.append((length, self._state))
        sparse = torch.full_like(scores, -torch.inf)
        dense = to_dense(self.codec.decode(packet), device=scores.device)
        sparse[0, :size] = dense.log()
        return sparse

    def _roll_back(self, length: int) -> None:
        """Roll the state back to the positions that are in the text."""
        verified = [(at, state) for at, state in self._states if at < length]
        if 0 < len(verified) < len(self._states):  # 0 means another text
            self._state = verified[-1][1]
        self._states = verified
