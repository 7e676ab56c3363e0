"""The arguments that the codec's calls refuse, each with its message."""

from functools import partial

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import Sampling, bits, theory
from tests.refusals import refuses

NAN, INF = np.nan, np.inf
CODEC, TOP = sqs.Codec(3), sqs.TopK(2)
RNG = np.random.default_rng(0)
Q = sqs.SparseDistribution([0, 2], [1, 3], 3)
KEY = bytes(16)
ROUND = sqs.Round([Q], [0])
P = np.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])

quantize = partial(CODEC.quantize, keep=TOP)
quantize_probs = partial(CODEC.quantize_probs, keep=TOP)
quantize_rows = partial(CODEC.quantize_rows, keep=TOP)
sparse = sqs.SparseDistribution
draw, guess = sqs.gumbel_draw, partial(sqs.gumbel_guess, key=KEY, position=0, count=1)
verify_two = partial(sqs.gumbel_verify, key=KEY, position=0)
drafter = partial(sqs.Drafter, CODEC, TOP, rng=RNG)
lists = sqs.Codec(1001, resolution=4096).quantize_top_logprobs_rows
fit, counted = sqs.Prior.fit, sqs.Prior.from_counts
unbiased = partial(CODEC.quantize_unbiased, np.zeros(3))
unbiased_rows = partial(CODEC.quantize_unbiased_rows, np.zeros((2, 3)))
prior_codec = partial(sqs.Codec, prior=sqs.Prior.from_counts([1, 1, 2]))
masked = partial(np.ma.masked_array, mask=True)


def config(**change):
    """Make a codec of a config with something changed, or left out by `...`."""
    changed = CODEC.config() | change
    found = {key: value for key, value in changed.items() if value is not ...}
    return sqs.Codec.from_config(found)


class Generator:
    """Another library's."""


class Wrong(np.random.Generator):
    """Gives wrong numbers."""

    def __init__(self, numbers):
        super().__init__(np.random.PCG64(0))
        self.numbers = numbers

    def integers(self, *_, dtype=None, **_options):
        return np.array(self.numbers, dtype)

    def random(self, _):
        return np.array(self.numbers)


def gives(words, call, *numbers):
    """Return a row for each of some wrong random numbers."""
    return [(words, partial(call, rng=Wrong(some))) for some in numbers]


def verify(target=P, round_=ROUND, rng=RNG):
    return sqs.verify(round_, target, rng)


GOOD = {"token_ids": [2, 7, 5, 0, 1, 2], "counts": [3, 1, 4, 1, 1, 2]}
GOOD |= {"offsets": [0, 2, 3, 6], "vocab_size": 8, "resolution": 4}


def rows(**change):
    return sqs.SparseRows(**GOOD | change)


DECODERS = CODEC.decode, CODEC.decode_round, CODEC.decode_sequence
LEAST = "max_survivors must be at least 1, got 0"

VALUES = [
    # Codecs and their configs
    (r"vocab_size must be in \[2, 1048576\], got 1$", lambda: sqs.Codec(1)),
    ("vocab_size", lambda: sqs.Codec((1 << 20) + 1)),
    (r"resolution must be in \[1, 65536\], got 0", lambda: sqs.Codec(3, 0)),
    ("resolution", lambda: sqs.Codec(3, 65537)),
    ("coding must be one of .*'enumerative'", lambda: sqs.Codec(3, 100, "zip")),
    ("3 ids, but the codec's vocab_size is 9", lambda: prior_codec(9)),
    *(
        (f"needs coding 'entropy', got '{x}'", partial(prior_codec, 3, coding=x))
        for x in ("bitpack", "enumerative")
    ),
    (r"format version 2, .* writes version 1$", lambda: config(format_version=2)),
    (r"must have the keys .*, got .*'priors'", lambda: config(priors=None)),
    (r"must have the keys .*, got", lambda: config(prior=...)),
    (r"keys .*, got \['coding', 'f", lambda: config(vocab_size=...)),
    ("must have the keys", lambda: config(format_version=...)),
    (r"\['1', 'coding'", lambda: sqs.Codec.from_config(CODEC.config() | {1: 2})),
    (r"vocab_size must be in \[2, 1048576\], got 1", lambda: config(vocab_size=1)),
    ("coding must be one of", lambda: config(coding="zip")),
    # Logits and probabilities
    (r"logits\[1\] is nan; .* finite or -inf", lambda: quantize([0, NAN, 0])),
    (r"logits\[2\] is inf", lambda: quantize([0, 0, INF])),
    (r"logits\[1\] is nan", lambda: quantize([-INF, NAN, INF])),
    (r"logits\[1\] is nan", lambda: quantize([-INF, NAN, INF], temperature=0)),
    ("logits: every token is masked", lambda: quantize([-INF] * 3)),
    ("logits: every token is masked", lambda: quantize([-INF] * 3, temperature=0)),
    (r"have shape \(3,\), got \(2,\)", lambda: quantize([0.0, 0.0])),
    (r"got \(1, 3\)", lambda: quantize([[0.0, 0.0, 0.0]])),
    ("must be finite and at least", lambda: quantize(np.zeros(3), temperature=-1)),
    ("must be finite and at least", lambda: quantize(np.zeros(3), temperature=NAN)),
    ("must be finite and at least", lambda: quantize(np.zeros(3), temperature=INF)),
    ("must sum to 1 within 0.001, got 1.1", lambda: quantize_probs([0.5, 0.6, 0.0])),
    ("got 0", lambda: quantize_probs([0.0, 0.0, 0.0])),
    (r"\[1\] is -0.5; .* not negative", lambda: quantize_probs([1.5, -0.5, 0.0])),
    (r"\[1\] is nan.*not negative$", lambda: quantize_probs([0.5, NAN, 0.5])),
    (r"probs\[1\] is inf", lambda: quantize_probs([0.5, INF, 0.5])),
    (r"probs\[2\] is -inf", lambda: quantize_probs([0.5, 0.5, -INF])),
    (r"probs\[2\] is -5e-324; .*", lambda: quantize_probs([0.5, 0.5, -5e-324])),
    (r"probs\[2\] is -inf", lambda: quantize_probs([1.5, -0.5, -INF])),
    (r"shape \(B, 3\), got \(3,\)", lambda: quantize_rows(np.zeros(3))),
    (r"shape \(B, 3\), got \(3, 2\)", lambda: quantize_rows(np.zeros((3, 2)))),
    ("threads must be at least 1, got 0", lambda: quantize_rows(-P, threads=0)),
    ("temperature must be finite", lambda: quantize_rows(P, temperature=-1)),
    (r"^logits\[1\]\[2\] is nan", lambda: quantize_rows([[0.0] * 3, [0.0, 0.0, NAN]])),
    # Distributions and rows of them
    ("strictly ascending", lambda: sparse([2, 1], [1, 1], 3)),
    ("strictly ascending", lambda: sparse([1, 1], [1, 1], 3)),
    ("token id 3 lies outside", lambda: sparse([0, 3], [1, 1], 3)),
    ("at least 1", lambda: sparse([0, 1], [1, 0], 3)),
    ("as many token_ids as counts", lambda: sparse([0, 1], [1], 3)),
    ("at least one, got 0", lambda: sparse([], [], 3)),
    ("one dimension", lambda: sparse([[0]], [1], 3)),
    ("at most 65536", lambda: sparse([0], [65537], 3)),
    ("without sign", lambda: sparse([-1], [1], 3)),
    ("vocab_size", lambda: sparse([0], [1], 1)),
    ("dropped_mass must be finite", lambda: sparse([1], [1], 8, dropped_mass=1.5)),
    ("outside the vocabulary of 3", lambda: Q.prob(-1)),
    ("outside the vocabulary of 3", lambda: Q.prob(3)),
    (r"\[0\] = 1 is not in the support", lambda: sqs.Round([Q], [1])),
    ("outside the vocabulary", lambda: sqs.Round([Q], [4])),
    (r"and resolution, got \[\(", lambda: sqs.Round([Q, sparse([1], [1], 3)], [0, 1])),
    (r"and resolution, got \[\(", lambda: sqs.Round([Q, sparse([1], [4], 4)], [0, 1])),
    ("1 to 256 distributions", lambda: CODEC.encode_round([], [])),
    ("1 to 256 distributions", lambda: sqs.Round([Q] * 257, [0] * 257)),
    ("expected vocabulary", lambda: sqs.Codec(4, 4).encode(Q)),
    ("expected vocabulary", lambda: sqs.Codec(3, 5).bits(Q)),
    ("expected vocabulary", lambda: sqs.Codec(3, 5).encode_round([Q], [0])),
    ("row 1 is empty", lambda: rows(offsets=[0, 2, 2, 6])),
    ("row 1 is empty", lambda: rows(offsets=[0, 3, 2, 6])),
    ("offsets must go from 0", lambda: rows(offsets=[1, 2, 3, 6])),
    ("offsets must go from 0", lambda: rows(offsets=[0, 2, 3])),
    ("offsets must go from 0", lambda: rows(offsets=np.zeros(0, int))),
    ("offsets must go from 0", lambda: rows(counts=[3, 1, 4])),
    ("row 2 has token_ids that don't", lambda: rows(token_ids=[2, 7, 5, 0, 0, 2])),
    ("row 0 has token_ids that don't", lambda: rows(token_ids=[7, 2, 5, 0, 1, 2])),
    ("row 0 has a token id outside the vocabulary of 7", lambda: rows(vocab_size=7)),
    ("row 2 has a count of 0", lambda: rows(counts=[3, 1, 4, 2, 0, 2])),
    ("row 1 has counts that don't sum", lambda: rows(counts=[3, 1, 5, 1, 1, 2])),
    ("row 0 has counts that don't sum", lambda: rows(resolution=5)),
    ("must not be empty", lambda: sqs.SparseRows.stack([])),
    (r"\(3, 4\), \(9, 4\)", lambda: sqs.SparseRows.stack([Q, sparse([1], [4], 9)])),
    ("must not be empty", lambda: sqs.SparseRows.concatenate([])),
    (
        r"\(3, 4\), \(8, 4\)",
        lambda: sqs.SparseRows.concatenate([rows(), sqs.SparseRows.stack([Q])]),
    ),
    # Rules, drafters and verdicts
    ("alpha must be finite and in", lambda: sqs.Conformal(alpha=-0.1)),
    ("alpha must be finite", lambda: sqs.Conformal(alpha=NAN)),
    ("eta must be above 0", lambda: sqs.Conformal(eta=0)),
    (r"eta must be finite and in \[0, 1\]", lambda: sqs.Conformal(eta=1.5)),
    ("beta must be", lambda: sqs.Conformal(beta=1.5)),
    ("dropped_mass must be finite and in", lambda: sqs.Conformal().next(0.1, -0.1)),
    ("dropped_mass must be finite and in", lambda: sqs.Conformal().next(0.1, 1.1)),
    ("dropped_mass must be finite and in", lambda: sqs.Conformal().next(0.1, NAN)),
    ("must be", lambda: sqs.TopK(0)),
    ("must be", lambda: sqs.Threshold(INF)),
    ("budget_bits must be at least 1, got 0", lambda: drafter(budget_bits=0)),
    (r"max_tokens must be in \[1, 256\]", lambda: drafter(max_tokens=0)),
    (r"max_tokens must be in \[1, 256\]", lambda: drafter(max_tokens=257)),
    ("max_survivors must be at least 1, got 0", lambda: drafter(max_survivors=0)),
    ("3 or 4 bytes, got 0", lambda: sqs.Verdict.from_bytes(b"", 50)),
    ("got 2", lambda: sqs.Verdict.from_bytes(b"\1\2", 50)),
    ("start with a zero byte", lambda: sqs.Verdict.from_bytes(b"\0\1\2\3", 50)),
    ("got 1000000", lambda: sqs.Verdict.from_bytes(b"\0" * 10**6, 50)),
    ("at most 256 tokens, got 257", lambda: sqs.Verdict.from_bytes(b"\0\x32\x32", 50)),
    ("at most 256 tokens, got 858", lambda: sqs.Verdict.from_bytes(b"\xff" * 4, 50)),
    (r"token must be in \[0, 49\], got 50", lambda: sqs.Verdict(0, 50).to_bytes(50)),
    (r"token must be in \[0, 49\], got -1", lambda: sqs.Verdict(0, -1).to_bytes(50)),
    (r"accepted must be in .*, got 257", lambda: sqs.Verdict(257, 0).to_bytes(50)),
    (r"accepted must be in .*, got -1", lambda: sqs.Verdict(-1, 0).to_bytes(50)),
    (r"vocab_size must be in .*, got 1", lambda: sqs.Verdict(0, 0).to_bytes(1)),
    (r"must have shape \(2, 3\).*got \(1, 3\)", lambda: verify(P[:1])),
    (r"must have shape \(2, 3\).*got \(2, 2\)", lambda: verify(P[:, :2])),
    *((LEAST, partial(call, b"", max_survivors=0)) for call in DECODERS),
    # Generators of wrong numbers
    *gives(r"rng.integers must be in \[0, 3\], got", Q.sample, -1, 4, 2**40),
    *gives(r"rng.random\(2\) must have", verify, [], [0.0], [0.0] * 3),
    *gives(r"rng.random\(2\)\[.\] must be in", verify, [0.5, 1.0], [NAN, 0.0]),
    *gives(r"rng.integers\(size=2\) must have shape", unbiased_rows, [], [1], [[1, 2]]),
    *gives(r"rng.integers\(size=1\) must have shape", unbiased, [], [[1]], [1] * 3),
    # Shared random numbers
    ("^temperature must be finite and at least 0", lambda: Sampling(-1)),
    (r"^top_k must be in \[0, 2147483647\], got -1", lambda: Sampling(top_k=-1)),
    (r"^top_p must be finite and in \[0, 1\]", lambda: Sampling(top_p=1.5)),
    (r"^min_p must be finite and in \[0, 1\]", lambda: Sampling(min_p=NAN)),
    ("key must have 16 bytes, got 15", lambda: guess([0.0, 1.0], key=bytes(15))),
    (
        r"position must be in \[0, 18446744073709551615\], got -1",
        lambda: guess([0.0, 1.0], position=-1),
    ),
    ("position must be in", lambda: guess([0.0, 1.0], position=2**64)),
    (r"count must be in \[1, 8\], got 9", lambda: guess([0.0, 1.0], count=9)),
    (r"logits\[0\] is nan", lambda: guess([NAN, 1.0])),
    (r"logits\[0\] is nan", lambda: guess([NAN, 1.0], sampling=Sampling(top_k=1))),
    (r"logits\[1\] is inf", lambda: guess([1.0, INF], sampling=Sampling(0))),
    ("token is masked", lambda: guess([-INF] * 2, sampling=Sampling(top_p=0.5))),
    (r"vocabulary of logits must be in \[2, .*\], got 1", lambda: guess([1.0])),
    (r"logits must have shape \(vocabulary,\)", lambda: guess([[1.0, 2.0]])),
    (r"must have shape \(2, 3\).* got \(3, 3\)", lambda: verify_two([1], np.eye(3))),
    (r"drafted\[1\] must be in \[0, 2\], got 3", lambda: verify_two([1, 3], np.eye(3))),
    ("at most 256 tokens, got 257", lambda: verify_two([0] * 257, np.ones((258, 2)))),
    ("position must be in", lambda: verify_two([1, 1], np.eye(3), position=2**64 - 2)),
    (r"logits\[1\]\[0\] is nan", lambda: verify_two([1], [[0.0, 1.0], [NAN, 0.0]])),
    # Lists of log-probabilities
    ("row 1 has 2 token_ids and 1 l", lambda: lists([[1], [2, 3]], [[-1], [-2]])),
    ("same number of rows, got 2 and 1", lambda: lists([[1], [2]], [[-1]])),
    ("row 1 lists no token", lambda: lists([[1], []], [[-1], []])),
    ("row 1 lists no token", lambda: lists([[1], [2]], [[-1], [-INF]])),
    ("row 0 lists token 2 twice", lambda: lists([[2, 3, 2]], [[-2, -3, -4]])),
    (r"row 1: token 1000 must be in \[0,", lambda: lists([[1], [1000]], [[-1], [-1]])),
    ("row 0: token -1 must be in", lambda: lists([[-1]], [[-1]])),
    ("row 1: .* of token 2 .*got nan", lambda: lists([[1], [2]], [[-1], [NAN]])),
    ("row 0: the log-.* at most 1/64, got inf", lambda: lists([[2]], [[INF]])),
    ("row 0: the log-.* at most 1/64, got 0.02", lambda: lists([[2]], [[0.02]])),
    ("row 0: .* sum to 1.01863", lambda: lists([[2, 3]], [[-0.7, -0.65]])),
    (r"token_ids\[0\] must be a list, got shape \(\)", lambda: lists([1], [-1])),
    # Priors
    ("all counts are 0", lambda: counted([0, 0, 0])),
    (r"counts\[1\] is negative: -1", lambda: counted([3, -1])),
    (r"shape \[2 to 1048576\], got \[1\]", lambda: counted([1])),
    (r"got \[1, 2\]", lambda: counted([[1, 2]])),
    ("distributions or counts, got neither", lambda: fit([])),
    ("one vocabulary, got 3 and 4", lambda: fit([Q, sparse([1], [4], 4)])),
    (r"shape \[3\], got \[2\]", lambda: fit([Q], [1, 2])),
    ("already has 1048576 ids", lambda: counted(np.ones(1 << 20, int)).with_tail()),
    ("classes must be", lambda: fit([Q], classes=0)),
    ("classes must be", lambda: fit([Q], classes=33)),
    ("classes must be", lambda: fit([], [3, 1], classes=2)),  # of a single text
    ("name must be one of .*smollm2", lambda: sqs.Prior.builtin("../priors/smollm2")),
]

NO_RNG = {0: "int", None: "NoneType", np.random.PCG64(0): "PCG64"}
NO_RNG |= {np.random.RandomState(0): "RandomState"}
NO_RNG |= {Generator(): "tests.codec.test_refusals.Generator"}
TAKE_RNG = [verify, Q.sample, unbiased, unbiased_rows, drafter]

TYPES = [
    *(
        (f"must be a numpy.random.Generator, got {name}; numpy", partial(call, rng=it))
        for it, name in NO_RNG.items()
        for call in TAKE_RNG
    ),
    ("round_ must be a Round, got Sparse", lambda: verify(round_=Q)),
    ("got float16", lambda: verify(P.astype(np.float16))),
    ("got list", lambda: verify(P.tolist())),
    ("integer", lambda: sqs.Codec(3.5)),
    ("prior must be a Prior", lambda: sqs.Codec(3, prior="smollm2")),
    ("prior must be a Prior", lambda: sqs.Codec(3, prior=b"prior")),
    ("resolution must be an integer, got '100'", lambda: config(resolution="100")),
    ("config must be a mapping, got list", lambda: sqs.Codec.from_config(["prior"])),
    ("float16, float32 or float64, got int64", lambda: quantize([1, 2, 3])),
    ("got int64", lambda: quantize_rows(np.zeros((3, 3), int))),
    ("threads must be an integer", lambda: quantize_rows(-P, threads=1.5)),
    ("keep must be a rule", lambda: quantize_rows(P, keep=3)),
    ("got complex128", lambda: quantize([1j, 0, 0])),
    ("got object", lambda: quantize(None)),
    ("must be a number", lambda: quantize(np.zeros(3), temperature=None)),
    ("must be a number", lambda: quantize(np.zeros(3), temperature="warm")),
    ("must be a number", lambda: quantize(np.zeros(3), temperature=b"0.7")),
    (r"keep must be a rule such as TopK\(64\)", lambda: quantize(np.zeros(3), keep=64)),
    ("expected a SparseDistribution, got bytes", lambda: CODEC.encode(b"")),
    ("must be integers, got float64", lambda: sparse([0.5], [1], 3)),
    ("integer", lambda: Q.prob(1.5)),
    *(
        ("max_survivors must be an integer", partial(call, b"", max_survivors=1.5))
        for call in DECODERS
    ),
    ("floating-point type, got int64", lambda: Q.to_dense(np.int64)),
    ("floating-point", lambda: rows().to_dense(int)),
    (r"distributions\[1\]", lambda: sqs.SparseRows.stack([Q, [1]])),
    (r"parts\[0\] must be a SparseRows", lambda: sqs.SparseRows.concatenate([Q])),
    ("distributions and tokens, or only", lambda: CODEC.encode_round([Q])),
    ("or only", lambda: CODEC.encode_round(ROUND, (0,))),
    ("integer", lambda: sqs.TopK(2.5)),
    (r"beta must be a number, got '0\.5'", lambda: sqs.Threshold("0.5")),
    ("abstract", sqs.Keep),
    ("keep must be a rule", lambda: sqs.Drafter(CODEC, 5, rng=RNG)),
    ("codec must be a Codec, got int", lambda: sqs.Drafter(3, TOP, rng=RNG)),
    ("^temperature must be a number, got '1'", lambda: Sampling("1")),
    ("^top_k must be an integer, got 0.5", lambda: Sampling(top_k=0.5)),
    ("must be a Sampling, got float", lambda: draw([0.0, 1.0], KEY, 0, sampling=0.7)),
    ("must be a Sampling, got float", lambda: guess([0.0, 1.0], sampling=0.7)),
    ("must be a Sampling", lambda: verify_two([], [[0.0, 1.0]], sampling=0.7)),
    (r"\[1\] must be integers, got float64", lambda: lists([[1], [2.0]], [[-1], [-1]])),
    (r"logprobs\[0\] must be numbers, got object", lambda: lists([[1]], [[None]])),
    (r"logprobs\[0\] must be .* a MaskedArray", lambda: lists([[1]], [masked([-1.0])])),
    ("counts must be integers, got float64", lambda: counted([1.0, 2.0])),
    ("counts must be integers, got bool", lambda: counted([True, False])),
    ("integers", lambda: counted([])),
    ("distributions", lambda: fit([Q, "q"])),
    ("name must be a string, got int", lambda: sqs.Prior.builtin(1)),
    # A mask would be lost.
    ("MaskedArray, whose mask would be", lambda: quantize(masked([0.1, 0.9]))),
    ("MaskedArray, whose mask would be", lambda: quantize_probs(masked([0.1, 0.9]))),
    ("MaskedArray, whose", lambda: quantize_rows(masked([[0.1, 0.9]]))),
    ("MaskedArray, whose mask would be", lambda: sparse(masked([1]), [10], 8)),
    ("MaskedArray, whose mask would be", lambda: verify(masked(P))),
    ("MaskedArray, whose", lambda: sqs.verify_rounds([None], P[:1], masked([0.5]))),
    ("MaskedArray, whose mask would be", lambda: counted(masked([5, 1]))),
    ("MaskedArray, whose", lambda: theory.acceptance_rate(masked(np.eye(3)[0]), Q)),
    ("MaskedArray, whose mask would be", lambda: bits.measure(masked([[0.1, 0.9]]))),
    ("MaskedArray", lambda: theory.rejection_bound([0], masked([0.5]), [1], 1)),
]


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        *((ValueError, *row) for row in VALUES),
        *((TypeError, *row) for row in TYPES),
    ],
)
def test_arguments_are_refused(error, words, call):
    refuses(words, call, error=error)
