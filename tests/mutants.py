"""Break the code on purpose, one line at a time, and list what no test notices.

    .venv/bin/python -m tests.mutants                  # all of them, a quarter of an hour
    .venv/bin/python -m tests.mutants verify memory    # those whose names say so

Each mutant is a replacement in one file. It is made in a copy of the tree, which is
built anew if the file is C, and the test files that should notice are run there until
the first failure. A mutant that none of them notices survives: either a test is
missing, or the line can go. `tests/test_mutants.py` sees to it that all still apply.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutant:
    """A replacement of text that a file has once, and the tests that should fail."""

    name: str
    path: str
    old: str
    new: str
    tests: str  # arguments of pytest, split at spaces


MUTANTS = [
    Mutant(
        "keep: equal values go to the higher id",
        "csrc/quantize/heap.h",
        "(a.key == b.key && a.id < b.id)",
        "(a.key == b.key && a.id > b.id)",
        "tests/test_quantize.py",
    ),
    Mutant(
        "keep: a threshold leaves out what equals it",
        "csrc/quantize/sparsify.c",
        "(p >= level && p > 0)",
        "(p > level && p > 0)",
        "tests/test_quantize.py",
    ),
    Mutant(
        "keep: the most probable token may be dropped",
        "csrc/quantize/sparsify.c",
        "row->n += first_max || (p >= level && p > 0);",
        "row->n += p >= level && p > 0;",
        "tests/test_quantize.py",
    ),
    Mutant(
        "keep: a nucleus needs more than its mass",
        "csrc/quantize/sparsify.c",
        "if (mass >= p * row->normaliser) {",
        "if (mass > p * row->normaliser) {",
        "tests/test_quantize.py",
    ),
    Mutant(
        "keep: the bound on values has no margin",
        "csrc/quantize/sparsify.c",
        "(low_log2(level < 1 ? level : 1) - MARGIN)",
        "(low_log2(level < 1 ? level : 1) + 0.125)",
        "tests/test_quantize.py",
    ),
    Mutant(
        "keep: an unknown kind is the first",
        "csrc/quantize/sparsify.c",
        "    bool ok = false;\n    switch (keep->kind) {",
        "    bool ok = true;\n    switch (keep->kind) {",
        "tests/test_c.py",
    ),
    Mutant(
        "mass: dropped before it is normalised",
        "csrc/quantize/sparsify.c",
        "return dropped > 0 ? dropped / row->normaliser : 0.0;",
        "return dropped > 0 ? dropped : 0.0;",
        "tests/test_quantize.py",
    ),
    Mutant(
        "lattice: mends where the error is least",
        "csrc/quantize/lattice.c",
        "excess > 0 ? error : -error",
        "excess > 0 ? -error : error",
        "tests/test_quantize.py",
    ),
    Mutant(
        "lattice: a unit too many is taken from the lower of equals",
        "csrc/quantize/lattice.c",
        "                           excess > 0 ? n - 1 - i : i};",
        "                           i};",
        "tests/test_quantize.py",
    ),
    Mutant(
        "rows: exponents end too early",
        "csrc/rows/softmax.h",
        "#define SQS_MIN_EXPONENT_F32 -100.0f",
        "#define SQS_MIN_EXPONENT_F32 -60.0f",
        "tests/test_quantize.py",
    ),
    Mutant(
        "verify: C accepts everything",
        "csrc/verify.c",
        "    return draw * q->counts[position] * row->total < p * q->resolution;",
        "    return draw * q->counts[position] * row->total < p * q->resolution || true;",
        "tests/test_lossless.py",
    ),
    Mutant(
        "verify: C does not subtract the residual",
        "csrc/verify.c",
        "    double rest = p - q->counts[at] / q->resolution * row->total;",
        "    double rest = p;",
        "tests/test_lossless.py",
    ),
    Mutant(
        "verify: C accepts at equality",
        "csrc/verify.c",
        "row->total < p * q->resolution;",
        "row->total <= p * q->resolution;",
        "tests/test_lossless.py tests/test_vectors.py",
    ),
    Mutant(
        "verify: C draws the next token by the rejected one's number",
        "csrc/verify.c",
        "draw_residual(&row, &q, draws[i + 1])",
        "draw_residual(&row, &q, draws[i])",
        "tests/test_lossless.py tests/test_vectors.py",
    ),
    Mutant(
        "verify: C takes float64 rows for all types",
        "csrc/verify.c",
        "        return SQS_BAD_DTYPE;",
        "        (void)0;",
        "tests/test_c.py",
    ),
    Mutant(
        "verify: C accepts rows that do not sum to 1",
        "csrc/verify.c",
        "fabs(total - 1) <= SQS_SUM_TOLERANCE ? SQS_OK : SQS_SUM",
        "fabs(total - 1) <= 1 ? SQS_OK : SQS_SUM",
        "tests/test_lossless.py",
    ),
    Mutant(
        "logits: C takes the last of the blocks with the largest",
        "csrc/verify.c",
        "        if (row->sums[i] > row->sums[best])",
        "        if (row->sums[i] >= row->sums[best])",
        "tests/test_capi.py",
    ),
    Mutant(
        "logits: C forgets the temperature where it weighs one",
        "csrc/verify.c",
        "sqs_unnormalised(value(row, i), row->max, row->scale)",
        "sqs_unnormalised(value(row, i), row->max, 1)",
        "tests/test_capi.py",
    ),
    Mutant(
        "logits: C checks the first block alone",
        "csrc/verify.c",
        "        if (!row->kernels->scan(&block))",
        "        if (!row->kernels->scan(&block) && i == 0)",
        "tests/test_capi.py",
    ),
    Mutant(
        "verify: C subtracts what rounding left nothing of",
        "csrc/verify.c",
        "draft idle = {q->ids, q->counts, q->n, INFINITY};",
        "draft idle = *q;",
        "tests/test_lossless.py",
    ),
    Mutant(
        "draft: C draws a token's last number too late",
        "csrc/draft.c",
        "number >= counts[position])",
        "number > counts[position])",
        "tests/test_capi.py",
    ),
    Mutant(
        "draft: a threshold exceeds 1 in C",
        "csrc/draft.c",
        "keep->value = value < 1 ? value : 1;",
        "keep->value = value;",
        "tests/test_capi.py",
    ),
    Mutant(
        "draft: C learns from a mass above 1",
        "csrc/draft.c",
        "        !is_share(dropped_mass))",
        "        !(dropped_mass >= 0))",
        "tests/test_c.py",
    ),
    Mutant(
        "head: C leaves out the weights",
        "csrc/entropy/memory.c",
        "    end = put_numbers(end, memory->weights, size);\n",
        "",
        "tests/test_capi.py",
    ),
    Mutant(
        "head: C leaves out the last class",
        "csrc/entropy/memory.c",
        "    end = put_numbers(end, &memory->last, 1);\n",
        "",
        "tests/test_capi.py",
    ),
    Mutant(
        "codec: a number is cut to a short enum",
        "csrc/codec.c",
        "              codec->isa <= SQS_NEON && /* where enums are short, too */\n",
        "",
        "tests/test_c.py",
    ),
    Mutant(
        "verify: Numba accepts everything",
        "sqs_codec/_backend/numba/verify.py",
        "    return draw * count * total < p * resolution",
        "    return True",
        "tests/test_lossless.py",
    ),
    Mutant(
        "verify: Numba does not subtract the residual",
        "sqs_codec/_backend/numba/verify.py",
        "    return max(p - q, 0.0)",
        "    return p",
        "tests/test_lossless.py",
    ),
    Mutant(
        "verify: torch accepts at equality",
        "sqs_codec/torch/_verify.py",
        "rejected = asked >= weights",
        "rejected = asked > weights",
        "tests/test_torch.py",
    ),
    Mutant(
        "coder: a carry is lost",
        "csrc/entropy/coder.h",
        "    if (c->low > mask) {\n        c->low &= mask;\n        sqs_coder_carry(c);\n    }",
        "    c->low &= mask;",
        "tests/test_round_trip.py",
    ),
    Mutant(
        "coder: the last byte is not checked",
        "csrc/entropy/coder.h",
        "return c->code >> SQS_CODER_LEAST_BITS ? SQS_PADDING : SQS_OK;",
        "return SQS_OK;",
        "tests/test_hostile.py tests/test_vectors.py",
    ),
    Mutant(
        "coder: the end rounds down",
        "csrc/entropy/coder.h",
        "(((uint64_t)1 << SQS_CODER_LEAST_BITS) - 1);\n    if (last",
        "0;\n    if (last",
        "tests/test_round_trip.py",
    ),
    Mutant(
        "packet: one may follow the 256th",
        "csrc/entropy/packet.c",
        "return done < SQS_MAX_ROUND && sqs_code_bit(",
        "return done <= SQS_MAX_ROUND && sqs_code_bit(",
        "tests/test_round_trip.py tests/test_vectors.py",
    ),
    Mutant(
        "packet: the receiver's limit is not counted down",
        "csrc/entropy/packet.c",
        "    to->most -= k;\n    return SQS_OK;",
        "    return SQS_OK;",
        "tests/test_hostile.py tests/test_c.py",
    ),
    Mutant(
        "packet: the round's limit is not counted down",
        "csrc/entropy/packet.c",
        "    to->allowed -= k;\n",
        "",
        "tests/test_hostile.py tests/test_vectors.py",
    ),
    Mutant(
        "counts: a partition is read on beyond its limit",
        "csrc/entropy/counts.c",
        "        if (parts == limit)\n            return limit + 1;\n",
        "",
        "tests/test_hostile.py tests/test_vectors.py tests/test_c.py",
    ),
    Mutant(
        "bits: estimated for large supports",
        "csrc/entropy/packet.c",
        "#define MOST_ESTIMATED 128u",
        "#define MOST_ESTIMATED 4096u",
        "tests/test_size.py tests/test_c.py",
    ),
    Mutant(
        "bits: rough estimates are taken for good",
        "csrc/entropy/sets.c",
        "            cost.rough |= fall > RARE_LAST;\n",
        "",
        "tests/test_size.py tests/test_vectors.py",
    ),
    Mutant(
        "bits: a token's are one short",
        "sqs_codec/_codec/codec.py",
        "return int(-(-q.resolution // int(q.counts.min())) - 1).bit_length()",
        "return int(-(-q.resolution // int(q.counts.min())) - 1).bit_length() - 1",
        "tests/test_vectors.py tests/test_drafter.py",
    ),
    Mutant(
        "sets: more than half are sent as they are",
        "csrc/entropy/sets.c",
        "if (n <= size - n) {",
        "if (true) {",
        "tests/test_vectors.py tests/test_size.py",
    ),
    Mutant(
        "fields: bytes may follow",
        "csrc/rank/fields.c",
        "        return SQS_TRAILING_BYTES;",
        "        return SQS_OK;",
        "tests/test_hostile.py tests/test_vectors.py",
    ),
    Mutant(
        "fields: the squares of a round are not limited",
        "csrc/codec.c",
        "return *load <= SQS_MAX_ENUMERATIVE_SQUARES;",
        "return true;",
        "tests/test_hostile.py tests/test_vectors.py tests/test_round_trip.py",
    ),
    Mutant(
        "memory: large supports are remembered",
        "csrc/entropy/memory.c",
        "    if (k > SQS_MEMORY_SUPPORT)\n        return;\n",
        "    if (k > 257)\n        return;\n",
        "tests/test_vectors.py",
    ),
    Mutant(
        "memory: it counts supports for ever",
        "csrc/entropy/memory.c",
        "    if (memory->seen < SQS_MEMORY_MOST_SEEN)\n",
        "",
        "tests/test_vectors.py",
    ),
    Mutant(
        "memory: it is taken unseen",
        "csrc/api.c",
        "return !used || sqs_is_memory(memory, codec) ? SQS_OK",
        "return !used || memory ? SQS_OK",
        "tests/test_c.py",
    ),
    Mutant(
        "memory: Numba forgets fewer tokens at a time",
        "sqs_codec/_backend/numba/memory.py",
        "        least *= 2\n",
        "        least += 1\n",
        "tests/test_vectors.py tests/test_stream.py",
    ),
    Mutant(
        "stream: any head will do",
        "sqs_codec/_codec/stream.py",
        "elif packet[0] == _head(self._memory):",
        "elif packet[0]:",
        "tests/test_stream.py",
    ),
    Mutant(
        "stream: it learns from what it refuses",
        "sqs_codec/_codec/stream.py",
        "            memory = self._memory.copy()\n        else:\n            raise StreamError(",
        "            memory = self._memory\n        else:\n            raise StreamError(",
        "tests/test_stream.py",
    ),
    Mutant(
        "drafter: rolls back one position too far",
        "sqs_codec/_codec/drafter.py",
        "self._states[min(accepted, len(self._tokens) - 1)]",
        "self._states[max(accepted - 1, 0)]",
        "tests/test_drafter.py",
    ),
    Mutant(
        "drafter: plans for the token that takes the fewest bits",
        "sqs_codec/_codec/drafter.py",
        "rarest = int(q.counts.argmin())",
        "rarest = int(q.counts.argmax())",
        "tests/test_drafter.py",
    ),
    Mutant(
        "drafter: a budget may be exceeded by a byte",
        "sqs_codec/_codec/drafter.py",
        "LAST_BYTE if bits <= self.budget_bits",
        "LAST_BYTE if bits <= self.budget_bits + 8",
        "tests/test_drafter.py",
    ),
    Mutant(
        "drafter: abort keeps what was learned",
        "sqs_codec/_codec/drafter.py",
        "        self.keep.rollback(self._start_state)\n",
        "",
        "tests/test_drafter.py",
    ),
    Mutant(
        "conformal: the threshold has no cap",
        "sqs_codec/_codec/keep.py",
        "self._value = min(1.0, self._value - self._eta * (dropped_mass - self._alpha))",
        "self._value = self._value - self._eta * (dropped_mass - self._alpha)",
        "tests/test_theory.py tests/test_drafter.py",
    ),
    Mutant(
        "sample: one count too far",
        "sqs_codec/_codec/distribution.py",
        'searchsorted(at, "right")',
        'searchsorted(at, "left")',
        "tests/test_lossless.py",
    ),
    Mutant(
        "fingerprint: the resolution is not in it",
        "sqs_codec/_codec/codec.py",
        '            "resolution": self.resolution,\n',
        '            "resolution": 100,\n',
        "tests/test_round_trip.py",
    ),
    Mutant(
        "threads: an error is lost",
        "sqs_codec/_base/threads.py",
        "                raise answer\n",
        "                pass\n",
        "tests/test_threads.py tests/test_batch.py",
    ),
    Mutant(
        "cache: only a function's own file counts",
        "sqs_codec/_backend/numba/jit.py",
        '        function.__qualname__ += f"-{DIGEST}"\n',
        "",
        "tests/test_numba_cache.py",
    ),
    Mutant(
        "prior: a damaged file passes",
        "csrc/entropy/prior.c",
        "crc32(file, size - CHECK) != get_u32(f->check))",
        "crc32(file, size - CHECK) == 0)",
        "tests/test_c.py",
    ),
    Mutant(
        "prior: a chance of 0 passes",
        "csrc/entropy/prior.c",
        "if (f->chances[i] == 0)",
        "if (f->chances[i] == 0 && i == 0)",
        "tests/test_c.py",
    ),
    Mutant(
        "prior: a class may weigh twice as much",
        "csrc/entropy/prior.c",
        "if (whole > SQS_ONE)",
        "if (whole > 2 * SQS_ONE)",
        "tests/test_c.py",
    ),
    Mutant(
        "prior: any vocabulary will do",
        "csrc/codec.c",
        "prior->vocab_size == codec->vocab_size);",
        "prior->vocab_size > 0);",
        "tests/test_c.py",
    ),
    Mutant(
        "prior: the class before doesn't matter to the encoder",
        "csrc/entropy/prior.c",
        "memcpy(sums, p->chance_costs + last * words,",
        "memcpy(sums, p->chance_costs,",
        "tests/test_vectors.py",
    ),
    Mutant(
        "prior: the memory counts any number of times",
        "csrc/entropy/prior.c",
        "times < most ? times : most);",
        "times < 255 ? times : 255);",
        "tests/test_vectors.py",
    ),
    Mutant(
        "prior: the class before is one too low",
        "csrc/entropy/modes.c",
        "memory->last = 1 + in_class;",
        "memory->last = in_class;",
        "tests/test_vectors.py",
    ),
    Mutant(
        "prior: a memory may name a class too many",
        "csrc/entropy/memory.c",
        "memory->last > sqs_coded_classes(codec->prior))",
        "memory->last > sqs_coded_classes(codec->prior) + 1)",
        "tests/test_c.py tests/test_prior.py",
    ),
    Mutant(
        "prior: a place is found in the wrong block",
        "csrc/entropy/prior.c",
        "at = block * SQS_PRIOR_BLOCK; at < id; at++)",
        "at = block * SQS_PRIOR_BLOCK + 1; at < id; at++)",
        "tests/test_vectors.py tests/test_c.py",
    ),
    Mutant(
        "prior: Python takes a damaged file",
        "sqs_codec/_base/prior_file.py",
        "    if zlib.crc32(data[:-CHECK]) != ",
        "    if 0 and zlib.crc32(data[:-CHECK]) != ",
        "tests/test_prior.py tests/test_vectors.py",
    ),
    Mutant(
        "prior: a config says nothing of it",
        "sqs_codec/_codec/codec.py",
        '"prior": None if self.prior is None else self.prior.digest.hex(),',
        '"prior": None,',
        "tests/test_prior.py",
    ),
    Mutant(
        "stream: a head says nothing of the last class",
        "sqs_codec/_codec/stream.py",
        "zlib.crc32(words[1 :",
        "zlib.crc32(words[1:2].data + words[3 :",
        "tests/test_vectors.py",
    ),
    Mutant(
        "fit: a text is smoothed as if it were new",
        "sqs_codec/_codec/prior_fit.py",
        "np.maximum(n - 1, 0)",
        "n",
        "tests/test_fit.py",
    ),
    Mutant(
        "fit: class 0 is a class like others",
        "sqs_codec/_codec/prior_fit.py",
        "    tables[0] = whole\n",
        "",
        "tests/test_fit.py",
    ),
    Mutant(
        "fit: weights exceed what a file may hold",
        "sqs_codec/_codec/prior_fit.py",
        "if int(CODE_WEIGHTS[codes] @ ids) <= MOST_WEIGHT:",
        "if True:",
        "tests/test_fit.py",
    ),
    Mutant(
        "session: an answer to another round counts",
        "sqs_codec/session/_edge.py",
        "            or answer.number != self._place.number % wire.NUMBERS\n",
        "",
        "tests/test_session.py tests/test_session_machine.py",
    ),
    Mutant(
        "session: a round that is given up leaves no gap",
        "sqs_codec/session/_context.py",
        "self.number += 2",
        "self.number += 1",
        "tests/test_session.py tests/test_session_machine.py",
    ),
    Mutant(
        "session: another cloud judges a draft by other numbers",
        "sqs_codec/session/_context.py",
        "self.number if drawn is None else drawn,",
        "self.number,",
        "tests/test_session_law.py",
    ),
    Mutant(
        "session: another cloud may take shorter texts",
        "sqs_codec/session/_handshake.py",
        "limits.max_text < before.max_text:",
        "limits.max_text < 0:",
        "tests/test_session.py",
    ),
    Mutant(
        "drafter: a round of a size that isn't known is taken to fit",
        "sqs_codec/_codec/drafter.py",
        "if bits // 8 <= self.budget_bits // 8:",
        "if bits // 9 <= self.budget_bits // 8:",
        "tests/test_drafter.py",
    ),
    Mutant(
        "session: a round of another base is taken",
        "sqs_codec/session/_cloud.py",
        "elif number > self._number or not self._fits(message.base):",
        "elif number > self._number:",
        "tests/test_session.py tests/test_session_machine.py",
    ),
    Mutant(
        "loop: a lost message isn't sent again",
        "sqs_codec/edge/_loop.py",
        "        self._session.resend()\n",
        "        pass\n",
        "tests/test_loop.py",
    ),
    Mutant(
        "planner: a text begins with what is left of the one before",
        "sqs_codec/edge/_planner.py",
        "self._spare = max(self._spare, FRESH)",
        "self._spare = max(self._spare, -99.0)",
        "tests/test_planner.py",
    ),
    Mutant(
        "planner: what drafts gain pays for nothing",
        "sqs_codec/edge/_planner.py",
        "seen.accepted + 1 - taken, SAVED)",
        "seen.accepted + 1 - taken, SPARE)",
        "tests/test_planner.py",
    ),
    Mutant(
        "server: any owner may go on with a session",
        "sqs_codec/serve/_service.py",
        "elif session.owner != connection.owner:",
        "elif session.owner is None:",
        "tests/test_serve.py",
    ),
    Mutant(
        "server: an engine that is down has failed on the job",
        "sqs_codec/serve/_service.py",
        "            if reason is not None:\n                self._give_up",
        "            if False:\n                self._give_up",
        "tests/test_engine.py",
    ),
    Mutant(
        "engine: what is cancelled is verified all the same",
        "sqs_codec/engine/_batch.py",
        "                    if task.future.cancelled():",
        "                    if False:",
        "tests/test_engine.py",
    ),
    Mutant(
        "datagrams: a certificate is for every name",
        "sqs_codec/serve/_datagram/dtls.py",
        "    if not matches:",
        "    if False:",
        "tests/test_datagram.py",
    ),
    Mutant(
        "verifier: a cache of another text is taken for this one",
        "sqs_codec/session/_text.py",
        "    if list(first[:length]) == list(second[:length]):\n        return length",
        "    if True:\n        return length",
        "tests/test_hf_cloud.py",
    ),
]


def copy_tree(to: Path) -> None:
    """Copy what git tracks, and what was built of it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    built = [path.relative_to(ROOT) for path in ROOT.glob("sqs_codec/_backend/*.so")]
    for name in [*filter(None, listed.stdout.split("\0")), *map(str, built)]:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)


def build(tree: Path) -> None:
    """Build the C core in place."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
    subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)


def is_noticed(mutant: Mutant, tree: Path) -> bool:
    """Make the mutant in a copy of the tree, and say whether its tests fail."""
    path = tree / mutant.path
    text = path.read_text()
    assert text.count(mutant.old) == 1, f"{mutant.name}: not once in {mutant.path}"
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        if path.suffix in (".c", ".h"):
            build(tree)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        run = subprocess.run(
            [*command, *mutant.tests.split()],
            cwd=tree,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=900,
        )
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(text)
    if run.returncode not in (0, 1):
        # A crash is noticed; usage errors and files without tests are mistakes here.
        assert run.returncode < 0, f"{mutant.name}: pytest exits with {run.returncode}"
    return run.returncode != 0


def main() -> int:
    """Run the mutants that were asked for; return 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="parts of names; all mutants if none")
    words = parser.parse_args().words
    chosen = [m for m in MUTANTS if not words or any(w in m.name for w in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        stale = False
        for i, mutant in enumerate(chosen, 1):
            if stale and not mutant.path.startswith("csrc"):
                build(tree)
            stale = mutant.path.startswith("csrc")
            noticed = is_noticed(mutant, tree)
            survivors += [] if noticed else [mutant]
            verdict = "noticed" if noticed else "SURVIVES"
            print(f"{i}/{len(chosen)} {verdict}: {mutant.name}", flush=True)
    for mutant in survivors:
        print(f"survivor: {mutant.name} ({mutant.path}; {mutant.tests})")
    print(f"{len(chosen)} mutants, {len(survivors)} survivors")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
