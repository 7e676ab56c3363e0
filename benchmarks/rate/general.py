"""The size of a packet over prompts, compared with a general compressor.

    python -m benchmarks.rate.general          # seconds; needs zstandard

zstd at level 19 compresses fp16 probabilities with 16-bit ids, and the counts and ids
that the codec sends. Each distribution is a frame, optionally with a dictionary trained
on rows of other prompts, or a part of a stream that is flushed after each. Tokens of
the raw form are sorted by probability or by id, which sometimes helps. Frames have no
checksum, size or magic number. Rows are shipped drafts to which nothing was fitted.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import zstandard
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
from benchmarks.experiments.estimate import ratio, shown
from benchmarks.schemes import softmax
from benchmarks.tables import command, dim, table
from sqs_codec import theory
from tests.drafts import VOCAB_SIZE, held_out, load_drafts

K, RESOLUTION = 64, 100
LEVEL = 19
DICTIONARY = 16_384
"""The size of a dictionary in bytes."""

Packets = list[bytes]


class Rows:
    """Distributions in each form that is sent."""

    def __init__(self, logits: Iterator[NDArray[np.float32]], temperature: float):
        codec = sqs.Codec(VOCAB_SIZE, RESOLUTION)
        self.raw: Packets = []
        self.by_id: Packets = []
        self.counts: Packets = []
        self.sparse: list[sqs.SparseDistribution] = []
        for row in logits:
            probs = softmax(row, temperature)
            ids = np.argpartition(-probs, K)[:K]
            ids = ids[np.argsort(-probs[ids])]
            self.raw.append(_raw(probs, ids))
            self.by_id.append(_raw(probs, np.sort(ids)))
            q = codec.quantize(row, sqs.TopK(K), temperature=temperature)
            self.sparse.append(q)
            self.counts.append(
                q.counts.astype("u1").tobytes() + q.token_ids.astype("<u2").tobytes()
            )


def _raw(probs: NDArray[np.float64], ids: NDArray[np.intp]) -> bytes:
    return probs[ids].astype("<f2").tobytes() + ids.astype("<u2").tobytes()


def alone(packets: Packets, others: Packets) -> Packets:
    """Compress each packet separately."""
    return _frames(packets, None)


def trained(packets: Packets, others: Packets) -> Packets:
    """Compress each packet separately, with a dictionary trained on others."""
    return _frames(packets, zstandard.train_dictionary(DICTIONARY, others))


def streamed(packets: Packets, others: Packets) -> Packets:
    """Compress all in one stream that is flushed after each packet."""
    stream = zstandard.ZstdCompressor(LEVEL).compressobj()
    flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return [stream.compress(packet) + stream.flush(flush) for packet in packets]


def _frames(
    packets: Packets, dictionary: zstandard.ZstdCompressionDict | None
) -> Packets:
    how = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_dict_id=False,
    )
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=how)
    return [compressor.compress(packet) for packet in packets]


WAYS: dict[str, Callable[[Packets, Packets], Packets]] = {
    "alone": alone,
    "dictionary": trained,
    "stream": streamed,
}


def measure(rows: int, temperature: float) -> tuple[dict[str, float], str]:
    """Return mean bits per distribution in each form, and the last form's spread.

    Uses at most `rows` rows, evenly spaced among those to which nothing was fitted.
    """
    drafts = load_drafts()
    known, new = np.flatnonzero(~held_out(drafts)), np.flatnonzero(held_out(drafts))
    new = new[np.linspace(0, new.size - 1, min(rows, new.size)).round().astype(int)]
    others, sent = (Rows(map(drafts.row, at), temperature) for at in (known, new))
    paper = partial(theory.paper_bits, VOCAB_SIZE, resolution=RESOLUTION)
    nonzero = [paper(len(q.counts), conformal=True) for q in sent.sparse]
    found = {
        "dense fp16": 16.0 * VOCAB_SIZE,
        "the paper's formula, K-SQS": float(paper(K)),
        "C-SQS, for tokens with a count": float(np.mean(nonzero)),
    }
    for name, packets, samples in (
        ("fp16 and ids", sent.raw, others.raw),
        ("fp16 and ids by id", sent.by_id, others.by_id),
        ("counts and ids", sent.counts, others.counts),
    ):
        found[name] = _bits(packets)
        for way, compress in WAYS.items():
            found[f"{name}, zstd {way}"] = _bits(compress(packets, samples))
    for name, prior in (("none", None), ("smollm2", sqs.Prior.builtin("smollm2"))):
        codec = sqs.Codec(VOCAB_SIZE, RESOLUTION, prior=prior)
        packets = [*map(codec.encode, sent.sparse)]
        found[f"sqs-codec, prior {name}"] = _bits(packets)
    return found, spread(8 * np.array([*map(len, packets)]), drafts.prompt[new])


def spread(bits: NDArray[np.integer], prompts: NDArray[np.integer]) -> str:
    """Describe the sizes: the mean with its interval over prompts, and quantiles.

    >>> spread(np.array([8, 16, 24, 32]), np.array([1, 1, 2, 2]))
    'mean 20 (12 to 28 over 2 prompts), median 20, 90th percentile 30'
    """
    groups = [bits[prompts == number] for number in np.unique(prompts)]
    mean = ratio([x.sum() for x in groups], [x.size for x in groups]).as_json()
    middle, high = np.percentile(bits, (50, 90))
    return (
        f"mean {shown(mean, '.0f')[:-1]} over {len(groups)} prompts), "
        f"median {middle:.0f}, 90th percentile {high:.0f}"
    )


def _bits(packets: Sequence[bytes]) -> float:
    return 8 * float(np.mean([*map(len, packets)]))


def main(argv: list[str] | None = None) -> None:
    """Print a table."""
    parser = command("rate.general", __doc__, rows=10)
    parser.add_argument("--rows", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.7)
    args = parser.parse_args(argv)
    made = table("Bits per distribution, whole bytes", "", "bits")
    found, packets = measure(args.rows, args.temperature)
    for name, bits in found.items():
        made.add_row(name, f"{bits:,.0f}")
    number = ".".join(map(str, zstandard.ZSTD_VERSION))
    how = f"K = {K}, l = {RESOLUTION}, T = {args.temperature:g}"
    about = f"{args.rows} rows, {how}; zstd {number}, level {LEVEL}"
    Console().print(made, f"Last row: {packets}\n", dim(about))


if __name__ == "__main__":
    main()
