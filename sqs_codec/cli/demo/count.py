"""What crosses between the two ends of the demo, counted by a bystander.

The ends are those of any session (`sqs_codec.system.session`); a `Tap` on the link
keeps the packets, and a `Watched` draft model notes what the keep rule leaves, which
never crosses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

import sqs_codec as sqs
from sqs_codec import theory
from sqs_codec._codec.keep import count_kept, rule
from sqs_codec.cli.demo.pair import Pair
from sqs_codec.system.edge import EdgeMetrics, Step
from sqs_codec.system.hf import CachedModel, Cloud
from sqs_codec.system.session import ROUND_HEAD, CloudSession, LocalLink

RAW_TOKEN_BITS = 16 + 32
"""Raw top-K: an fp16 probability and an int32 id for each token kept."""


class Tap(LocalLink):
    """A link that keeps the packets of the rounds that are sent over it."""

    def __init__(self, cloud: Cloud, prior: sqs.Prior | None) -> None:
        priors = [] if prior is None else [prior]
        super().__init__(cloud, tokenizer=cloud.fingerprint, priors=priors)
        self._packets: list[bytes] = []

    def send(self, message: bytes) -> None:
        """Send a message, and keep its packet if it is a round."""
        if message[0] >= 0x80:
            self._packets.append(message[ROUND_HEAD:])
        super().send(message)

    def take(self) -> list[bytes]:
        """Return the packets since the last call."""
        packets, self._packets = self._packets, []
        return packets


class Paced(LocalLink):
    """A link to a cloud that decodes while the edge drafts: a pass for eight steps."""

    STEPS = 8
    """Steps of a draft that takes 15 ms in the 120 ms of a pass."""

    def __init__(self, cloud: Cloud, priors: Sequence[sqs.Prior]) -> None:
        super().__init__(cloud, tokenizer=cloud.fingerprint, priors=priors)
        self._looks = 0

    def _work(self, cloud: CloudSession) -> None:
        """Do nothing yet."""

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message; of a pass every eighth time, or if it may wait."""
        self._looks += 1
        if (
            self._cloud
            and not self._inbox
            and (timeout or not self._looks % self.STEPS)
        ):
            job = self._cloud.next_job()
            if job is not None:
                (verdict,) = self._verifier.verify([job])
                self._cloud.complete(job, verdict)
            self._inbox += self._cloud.data_to_send()
        return super().receive(timeout)


class Watched(CachedModel):
    """A draft model that notes K, what the keep rule leaves of each row."""

    def __init__(
        self, pair: Pair, keep: sqs.TopK | sqs.Conformal, temperature: float
    ) -> None:
        super().__init__(pair.draft, pair.vocab_size)
        self._keep = keep
        self._temperature = temperature
        self._kept: list[int] = []

    def logits(self, tokens: Sequence[int], last: int = 1) -> NDArray[np.float32]:
        """Return the model's logits; the rule is as it is now."""
        rows = super().logits(tokens, last)
        self._kept.append(support_kept(rows[-1], self._keep, self._temperature))
        return rows

    def take(self) -> list[int]:
        """Return K of each row since the last call."""
        kept, self._kept = self._kept, []
        return kept


def support_kept(
    logits: ArrayLike, keep: sqs.TopK | sqs.Conformal, temperature: float
) -> int:
    """K, the tokens a keep rule leaves before quantization drops most of them.

    The codec never needs this number, because it sends only the tokens whose
    count is not zero. The paper's formula charges for all K. At temperature 0 the
    distribution is a single token and so is what is kept.
    """
    if temperature == 0:
        return 1
    descending = np.sort(np.asarray(logits, np.float64))[::-1]
    descending = np.exp((descending - descending[0]) / temperature)
    descending /= descending.sum()
    unmasked = np.isfinite(logits).sum()
    return int(count_kept(*rule(keep), descending, unmasked))


@dataclass(kw_only=True)
class Stats(EdgeMetrics):
    """Sums over the rounds of one keep rule; every rate derives from them."""

    codec: sqs.Codec
    support_size_sent: bool
    """Whether the paper's scheme has to tell K, as in C-SQS."""
    rounds: int = 0
    kept: int = 0
    """Σ K over the drafted tokens."""
    survivors: int = 0
    """Σ k, likewise."""
    wire_bits: int = 0
    """8 for every byte of the rounds' messages: headers, distributions, drafted tokens,
    framing and padding."""
    paper_bits: int = 0
    """The same distributions by the paper's formula."""

    @property
    def raw_bits(self) -> int:
        """The same distributions as raw top-K, without drafted tokens or framing."""
        return RAW_TOKEN_BITS * self.kept

    @property
    def dense_bits(self) -> int:
        """The same distributions dense in fp16, likewise."""
        return 16 * self.codec.vocab_size * self.drafted

    @property
    def resampling_rate(self) -> float:
        """Resampled tokens per token of the text."""
        return self.resampled / max(1, self.tokens)

    @property
    def bits_per_drafted(self) -> float:
        """Bits on the wire per drafted token."""
        return self.wire_bits / max(1, self.drafted)

    def count(self, step: Step, packets: Sequence[bytes], kept: Sequence[int]) -> None:
        """Account for a step, the packet of its round if it had one, and each K."""
        self.add(step)
        self.rounds += len(packets)
        self.wire_bits += sum(8 * (ROUND_HEAD + len(packet)) for packet in packets)
        found = [q for p in packets for q in self.codec.decode_round(p).distributions]
        # After a stop token comes a row of which nothing is drafted.
        for q, k in zip(found, kept, strict=False):
            self.survivors += len(q.token_ids)
            self.kept += k
            self.paper_bits += theory.paper_bits(
                self.codec.vocab_size, k, q.resolution, conformal=self.support_size_sent
            )
