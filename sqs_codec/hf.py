"""The codec as a logits processor of transformers (the extra ``[hf]``)."""

try:
    import torch
    import transformers
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.hf", error, "hf") from error

import sqs_codec as sqs
from sqs_codec._base import checks
from sqs_codec.torch import to_dense
from sqs_codec.torch._quantize import quantize_row

__all__ = ["SparseLogitsProcessor"]


class SparseLogitsProcessor(transformers.LogitsProcessor):
    """Let a draft model sample from what an uplink would carry.

    Each row of the model's logits becomes a packet and is read back from it;
    transformers samples from the log of that distribution. So its ``generate`` shows,
    in one process, what the codec does to the text of a draft model, and what it costs.

    Parameters
    ----------
    codec : Codec
        If the model gives more logits than the codec has tokens, as models with
        padded vocabularies do, the rest are masked.
    temperature : float
        Of the model, in place of transformers' own.

    Attributes
    ----------
    drafted : int
        How many rows became packets.
    bits : int
        What these packets have taken, each on its own.

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
        # What it was after each position of the round, by the text's length there.
        self._states: list[tuple[int, float]] = []

    def __repr__(self) -> str:
        return (
            f"<SparseLogitsProcessor of {self.codec}, {self.keep}, temperature "
            f"{self.temperature:g}>"
        )

    def __call__(
        self, input_ids: torch.LongTensor | None, scores: torch.Tensor
    ) -> torch.Tensor:
        """Return the log of the distribution that is read back from a packet.

        Parameters
        ----------
        input_ids : torch.LongTensor of int64 [1, length] or None
            The text so far; it tells a rule that learns which positions were judged.
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
        if q.dropped_mass is not None:  # of a rule that learns
            self._state = keep.next(state, q.dropped_mass)
        self._states.append((length, self._state))
        sparse = torch.full_like(scores, -torch.inf)
        dense = to_dense(self.codec.decode(packet), device=scores.device)
        sparse[0, :size] = dense.log()
        return sparse

    def _roll_back(self, length: int) -> None:
        """Take back what `keep` learned from positions that the text doesn't have."""
        judged = [(at, state) for at, state in self._states if at < length]
        if 0 < len(judged) < len(self._states):  # at 0 it is another text
            self._state = judged[-1][1]
        self._states = judged
