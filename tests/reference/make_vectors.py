"""Check the golden vectors in ``tests/vectors`` against the reference.

    python -m tests.reference.make_vectors          check the files (the default)
    python -m tests.reference.make_vectors --write  write the reference's results

The inputs of a case stand in its file, and the reference makes the rest. Vectors change
only when the format does: then write them, read the diff, and commit them with the
change to ``docs/format.md``, the reference, C and Numba. A new case needs its inputs.
``tests/vectors/README.md`` says what the files hold.
"""

import argparse
import base64
import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference import BrokenRuleError, entropy, gumbel
from tests.reference import prior as prior_files
from tests.reference import sqs_reference as ref
from tests.reference.prior import Prior
from tests.reference.verify import verify

VECTORS = Path(__file__).parents[1] / "vectors"

CODINGS = ("bitpack", "enumerative", "entropy")

Distribution = tuple[list[int], list[int]]
"""Token ids and their counts."""

Case = dict[str, Any]


def formula(n: int, seed: int) -> np.ndarray:
    """Numbers in no obvious order."""
    return (7919 * np.arange(n, dtype=np.int64) + 104729 * seed) % 4093


def formula_logits(vocab_size: int, seed: int, slope: int = 0) -> np.ndarray:
    """The inputs of the vectors; exact in float32."""
    r = formula(vocab_size, seed)
    octaves = np.array([i.bit_length() for i in range(vocab_size)])
    return ((r * r // 1024) / 1024 - slope * octaves).astype(np.float32)


def formula_set(k: int, n: int, seed: int) -> list[int]:
    """A set in no obvious order."""
    return np.sort(np.argsort(formula(n, seed), kind="stable")[:k]).tolist()


def formula_counts(k: int, resolution: int, seed: int) -> list[int]:
    """A composition of the resolution in no obvious order."""
    return entropy.uncut(formula_set(k - 1, resolution - 1, seed), resolution)


def shape_of(case: Case) -> Distribution:
    """A distribution such as no language model has."""
    v, k, seed = case["vocab_size"], case["k"], case["seed"]
    ids = [*range(v)][-k:] if case["last_ids"] else formula_set(k, v, seed)
    return ids, formula_counts(k, case["resolution"], seed)


def formula_round(
    supports: list[int], resolution: int
) -> tuple[list[Distribution], list[int]]:
    """A round of distributions that take few bytes, however large they are."""
    drafted = [([*range(k)], [resolution - k + 1] + [1] * (k - 1)) for k in supports]
    return drafted, [0] * len(supports)


def logits_of(case: Case) -> np.ndarray:
    return formula_logits(case["vocab_size"], case["seed"], case["slope"])


def pairs(case: Case) -> list[Distribution]:
    return [(q["token_ids"], q["counts"]) for q in case["distributions"]]


def codec_of(case: Case) -> tuple[int, int]:
    return case["vocab_size"], case["resolution"]


def packet_of(ids: list[int], counts: list[int], *codec: Any) -> str:
    return ref.encode(ids, counts, *codec).hex()


def bits_of(
    ids: list[int], counts: list[int], *codec: Any, prior: Prior | None = None
) -> float:
    """Bits before padding; for entropy coding, not an integer."""
    if codec[-1] != "entropy":
        return len(ref.distribution_bits(ids, counts, *codec))
    return round(entropy.bits(ids, counts, *codec[:-1], prior), 2)


def token_bits_of(ids: list[int], counts: list[int], *codec: Any) -> int:
    return ref.token_bits(counts, codec[-1])


SIZES: dict[str, Callable[..., Any]] = {
    "packets": packet_of,
    "bits": bits_of,
    "token_bits": token_bits_of,
}


def packets(case: Case, ids: list[int], counts: list[int]) -> Case:
    """A distribution's packet and its sizes in every coding."""
    q = ids, counts, *codec_of(case)
    return {key: {c: size(*q, c) for c in CODINGS} for key, size in SIZES.items()}


def broken_rule(decode: Callable[[], object]) -> str:
    """The rule that a packet or a prior breaks."""
    try:
        decode()
    except BrokenRuleError as error:
        return str(error)
    raise AssertionError("no rule is broken")


def distributions(case: Case) -> Case:
    """Logits to counts to packets, in all codings."""
    given = case["temperature"], *ref.limits(*case["keep"]), case["resolution"]
    ids, counts, dropped = ref.quantize_logits(logits_of(case), *given)
    made = {"token_ids": ids, "counts": counts, "dropped_mass": dropped.hex()}
    return made | packets(case, ids, counts)


def shapes(case: Case) -> Case:
    """Distributions such as no language model has."""
    return packets(case, *shape_of(case))


def rounds(case: Case) -> Case:
    """Rounds in all codings."""
    encode = partial(ref.encode_round, pairs(case), case["tokens"], *codec_of(case))
    return {"packets": {coding: encode(coding=coding).hex() for coding in CODINGS}}


def sequences(case: Case) -> Case:
    """Sequences, each with the indices of its distributions."""
    drawn = [pairs(case)[i] for i in case["rows"]]
    return {"packet": entropy.encode_sequence(drawn, *codec_of(case)).hex()}


def limits(case: Case) -> Case:
    """Rounds with the largest supports that the format allows."""
    drafted, tokens = formula_round(case["supports"], case["resolution"])
    codec = *codec_of(case), case["coding"]
    packet = ref.encode_round(drafted, tokens, *codec)
    decoded, drawn = ref.decode_round(packet, *codec)
    assert ([*map(tuple, decoded)], drawn) == (drafted, tokens)
    if "sequence" not in case:
        return {"packet": packet.hex()}
    sequence = entropy.encode_sequence(drafted, *codec_of(case))
    return {"packet": packet.hex(), "sequence": sequence.hex()}


DECODE: dict[str, Callable[..., Any]] = {
    "distribution": entropy.decode,
    "round": entropy.decode_round,
    "sequence": entropy.decode_sequence,
}


def malformed(case: Case) -> Case:
    """A packet for each rule that a packet can break."""
    decode = DECODE[case["kind"]]
    if case["coding"] != "entropy":
        of_kind = {"distribution": ref.decode, "round": ref.decode_round}[case["kind"]]
        decode = partial(of_kind, coding=case["coding"])
    packet = bytes.fromhex(case["packet"])
    return {"rule": broken_rule(lambda: decode(packet, *codec_of(case)))}


def priors(case: Case) -> Case:
    """Priors, and packets of every kind with them."""
    prior = prior_files.parse(base64.b64decode(case["prior"]))
    packet = partial(packet_with_prior, pairs(case), codec_of(case), prior)
    return {"packets": [{**given, **packet(given)} for given in case["packets"]]}


def packet_with_prior(
    known: list[Distribution], codec: tuple[int, int], prior: Prior, given: Case
) -> Case:
    decode = partial(DECODE[given["kind"]], prior=prior)
    if "rule" in given:
        packet = bytes.fromhex(given["packet"])
        return {"rule": broken_rule(lambda: decode(packet, *codec))}
    coded, more = [known[i] for i in given["distributions"]], {}
    content: Any = coded
    if given["kind"] == "distribution":
        content = coded[0]
        packet = entropy.encode(*content, *codec, prior)
        more = {"bits": bits_of(*content, *codec, "entropy", prior=prior)}
    elif given["kind"] == "round":
        content = coded, given["tokens"]
        packet = entropy.encode_round(*content, *codec, prior=prior)
    else:
        packet = entropy.encode_sequence(coded, *codec, prior)
    assert decode(packet, *codec) == content
    return {"packet": packet.hex(), **more}


def bad_priors(case: Case) -> Case:
    """A file for each rule that a prior can break, and some that break two."""
    file = base64.b64decode(case["prior"])
    return {"rule": broken_rule(lambda: prior_files.parse(file))}


def verdicts(case: Case) -> Case:
    """Rounds, target rows and draws, and what follows from them."""
    found = verify(pairs(case), case["tokens"], case["target"], case["draws"])
    return dict(zip(("accepted", "token"), found, strict=True))


def races(case: Case) -> Case:
    """Races of formula rows by keys and positions that look like nothing."""
    key = np.frombuffer(bytes.fromhex(case["key"]), "<u4").tolist()
    given = case["temperature"], key, int(case["position"], 16), len(case["tokens"])
    tokens, scores = gumbel.race(logits_of(case), *given)
    return {"tokens": tokens, "scores": [score.hex() for score in scores]}


def unbiased(case: Case) -> Case:
    """Formula rows to counts, by the least number, the largest and one between."""
    how = case["temperature"], case["resolution"], int(case["number"], 16)
    ids, counts = ref.quantize_unbiased(logits_of(case), *how)
    return {"token_ids": ids, "counts": counts}


FILES: dict[str, Callable[[Case], Case]] = {
    "distributions.json": distributions,
    "shapes.json": shapes,
    "rounds.json": rounds,
    "sequences.json": sequences,
    "limits.json": limits,
    "malformed.json": malformed,
    "priors.json": priors,
    "bad_priors.json": bad_priors,
    "verify.json": verdicts,
    "gumbel.json": races,
    "unbiased.json": unbiased,
}
"""The reference's result for a case of each kind."""


def render(name: str) -> str:
    """A file as JSON with a line for each value, or list of numbers."""
    file = json.loads((VECTORS / name).read_text())
    file["cases"] = [{**case, **FILES[name](case)} for case in file["cases"]]
    lists = re.compile(r"\[[^][{}\"]*\]")
    text = json.dumps(file, indent=1)
    return lists.sub(lambda m: " ".join(m[0].split()), text) + "\n"


def main() -> int:
    """Check or write the files; the exit status is 0 if they agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="write what differs")
    write = parser.parse_args().write
    stale = []
    for name in FILES:
        text = render(name)
        if text != (VECTORS / name).read_text():
            stale.append(name)
            if write:
                (VECTORS / name).write_text(text)
    for name in stale:
        print(f"{name} differs from what the reference makes")
    return 1 if stale and not write else 0


if __name__ == "__main__":
    sys.exit(main())
