"""Compare C on each instruction set, Numba and the reference; and with float64.

    python -m tests.campaign                        the campaign, some minutes
    python -m tests.campaign --random 1000 --real 20 --files 1000     a taste of it

Real drafts (each at T = 0.3, 0.7 and 1.0) and random awkward logits go through the
implementations, which have to agree on token ids, counts, dropped mass, bits and
packets, in turn of every coding, and with a prior. The real ones are also sent as
rounds, and verified. The counts of the real drafts are compared with
Reznik's algorithm on NumPy's softmax in float64 as well. Mutated files of priors have
to be refused with a ValueError wherever the reference refuses them.
"""

import argparse
import contextlib
import dataclasses
import platform
import sys
import time
from collections.abc import Sequence
from itertools import islice

import numpy as np
from tqdm import tqdm

import sqs_codec as sqs
from sqs_codec._backend import native, numba
from sqs_codec._backend.core import Core
from sqs_codec._base.format import MAX_SURVIVORS, Coding
from sqs_codec._codec.keep import rule
from tests import kit
from tests.drafts import VOCAB_SIZE, load_drafts
from tests.reference import BrokenRuleError, entropy
from tests.reference import prior as reference_priors
from tests.reference import sqs_reference as reference
from tests.reference.verify import verify

TEMPERATURES = (0.3, 0.7, 1.0)
TIE = 1e-6
"""How near to a tie the errors must lie where float64 finds another lattice point."""

ROUND = 4
"""Distributions in a round."""

ISAS = [isa for isa in native.ISAS.values() if native.lib.sqs_find_isa(isa)]
"""Those that this machine has."""


def cores(codec: sqs.Codec) -> list[Core]:
    prior = None if codec.prior is None else codec.prior.to_bytes()
    coding = Coding[codec.coding.upper()]
    arguments = codec.vocab_size, codec.resolution, coding, prior
    return [numba.Core(*arguments), *(native.Core(*arguments, isa=isa) for isa in ISAS)]


def differs(
    row: np.ndarray, keep: sqs.Keep, temperature: float, codec: sqs.Codec
) -> bool:
    ids, counts, dropped = kit.reference_quantize(row, keep, temperature, codec)
    packet = None
    if len(ids) <= codec.max_survivors:
        shape, prior = (codec.vocab_size, codec.resolution), kit.parsed(codec.prior)
        packet = reference.encode(ids, counts, *shape, codec.coding, prior)
    given = row[None], temperature, rule(keep)
    bits = set()
    for core in cores(codec):
        status, _, core_ids, core_counts, _, masses = core.quantize_logits(*given, True)
        found = status, core_ids.tolist(), core_counts.tolist(), masses
        if found != (0, ids, counts, [dropped]):
            return True
        if packet is None:
            continue
        if core.encode_logits(*given)[2] != [packet]:
            return True
        bits.add(core.bits(core_ids, core_counts))
        if core.encode(core_ids, core_counts) != packet:
            return True
        status, core_ids, core_counts = core.decode(packet, len(ids))
        if (status, core_ids.tolist(), core_counts.tolist()) != (0, ids, counts):
            return True
    return len(bits) > 1


def rounds_differ(
    codec: sqs.Codec, rows: Sequence[np.ndarray], rng: np.random.Generator
) -> bool:
    """Say whether they disagree on a round drafted from rows, and on its verdict.

    The target is the draft at another temperature.
    """
    common = codec.vocab_size, codec.resolution, kit.parsed(codec.prior)
    drafted = [codec.quantize(row, sqs.TopK(64), temperature=0.7) for row in rows]
    round_ = sqs.Round(drafted, [q.sample(rng) for q in drafted])
    given = round_.arrays
    tokens = list(round_.tokens)
    pairs = [kit.as_lists(q)[:2] for q in drafted]
    packet = entropy.encode_round(pairs, tokens, *common)
    target = np.array([kit.softmax(row, 1.0) for row in [*rows, rows[0]]])
    draws = rng.random(len(target))
    verdict = verify(pairs, tokens, target.tolist(), draws.tolist())
    for core in cores(codec):
        status, *found = core.decode_round(packet, MAX_SURVIVORS)
        if status or not all(map(np.array_equal, found, given)):
            return True
        if core.encode_round(given) != packet:
            return True
        if core.verify(given, target, draws)[2:] != verdict:
            return True
    return False


def misread_files(rng: np.random.Generator, n: int) -> tuple[int, int]:
    """Return how many of n mutated files are legal, and how many are misread."""
    legal = misread = 0
    for i in tqdm(range(n), "files", disable=None):
        if i % 100 == 0:
            good = kit.any_prior(rng, int(rng.choice([2, 3, 8, 17, 1000]))).to_bytes()
        data = kit.mutate_prior(rng, good)
        expected = found = None
        with contextlib.suppress(BrokenRuleError):
            expected = list(reference_priors.parse(data).kinds)
        with contextlib.suppress(ValueError):
            found = sqs.Prior.from_bytes(data)._tables.kinds.tolist()
        legal += expected is not None
        misread += found != expected
    return legal, misread


def main(argv: list[str] | None = None) -> int:
    """Run the campaign; the exit status says whether all agreed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--random", type=int, default=100_000, help="random rows")
    parser.add_argument("--real", type=int, default=10_000, help="real rows at most")
    parser.add_argument("--files", type=int, default=100_000, help="files of priors")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, "
        f"seed {options.seed}, Numba and {len(ISAS)} instruction sets"
    )
    start = time.perf_counter()
    rng = np.random.default_rng(options.seed)

    codecs = [kit.make_codec(name, VOCAB_SIZE) for name in kit.CODECS]
    keep = sqs.TopK(64)
    real = different = same_point = rounds = 0
    ties = []
    recent: list[np.ndarray] = []
    drafts = load_drafts()
    rows = min(options.real, len(drafts))
    bar = tqdm(islice(drafts.rows(), rows), "real", rows, disable=None)
    for number, row in enumerate(bar):
        for i, temperature in enumerate(TEMPERATURES):
            real += 1
            codec = codecs[(number + i) % len(codecs)]
            different += differs(row, keep, temperature, codec)
            q = codec.quantize(row, keep, temperature=temperature)
            counts, margin = kit.independent_counts(row, 64, temperature, 100)
            if np.array_equal(q.to_dense(np.float64), counts / 100):
                same_point += 1
            else:
                ties.append(margin)
        recent.append(row)
        if len(recent) == ROUND:
            rounds += 1
            different += sum(rounds_differ(c, recent, rng) for c in codecs[-2:])
            recent.clear()

    for i in tqdm(range(options.random), "random", disable=None):
        vocab_size = int(rng.choice([2, 3, 15, 16, 17, 33, 64, 65, 200]))
        resolution = int(rng.choice([1, 2, 3, 100, 1000, 1 << 16]))
        temperature = float(rng.choice([0, 1e-40, 0.3, 0.7, 1.0, 5.0]))
        row, any_rule = kit.random_logits(rng, vocab_size), kit.random_keep(rng)
        codec = kit.make_codec(kit.CODECS[i % len(kit.CODECS)], vocab_size, resolution)
        if codec.prior is not None:
            codec = dataclasses.replace(codec, prior=kit.any_prior(rng, vocab_size))
        different += differs(row, any_rule, temperature, codec)

    print(
        f"{real} real and {options.random} random distributions and {rounds} rounds "
        f"of the real ones: {different} differ"
    )
    legal, misread = misread_files(rng, options.files)
    different += misread
    print(f"{legal} of {options.files} files are priors; {misread} are misread")
    print(f"lattice point as in float64: {same_point} of {real} real distributions")
    for margin in ties:
        print(f"  another point: two errors lay within {margin:.1e} of a tie")
    print(f"{time.perf_counter() - start:.0f} s")
    return int(different > 0 or max(ties, default=0.0) > TIE)


if __name__ == "__main__":
    sys.exit(main())
