"""Compare estimates of the divergence of rounded models with dense sums.

    python -m benchmarks.kld.rounded                         # twenty minutes
    python -m benchmarks.kld.rounded --model gemma3 --contexts 2 --seeds 500

The matrices of SmolLM2 or Gemma 3 270M are rounded to 3 to 8 bits, in groups of 32; in
``noise``, one layer is noise. Each model's divergence from the original, row by row in
float64, is compared with estimates from counts, with a reference of the same rows for
each seed. Errors are in percent of the divergence. The text is the language reference
of this Python's `help` (Python's license), or, for Gemma 3, sentences in ten languages.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import sqs_codec as sqs
from benchmarks.data.make_corpus import read_texts
from benchmarks.experiments.models import GEMMA3, SMOLLM2, TEXTS
from benchmarks.pair import gemma3_pair
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec import distill
from sqs_codec.distill import _divergence, _header, _make, _tasks
from sqs_codec.system.hf import ModelReader, _models, load_model

Logs = NDArray[np.float32]

BITS, GROUP = (8, 6, 5, 4, 3), 32
LAYER, LOUD = 10, 30.0
"""The noisy layer, and the noise relative to its weights."""

RESOLUTIONS = 16, 32, 50, 128


def manual() -> str:
    """Return the pages of Python's `help` as a text."""
    return "\n".join(topics[name] for name in sorted(topics))


def divergences(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return the KL divergence of rows of logits from others, in float64."""
    found = []
    for pair in zip(a, b, strict=True):
        x, y = (z - z.max().astype(np.float64) for z in pair)
        x, y = (z - np.log(np.exp(z).sum()) for z in (x, y))
        found.append(np.exp(x) @ (x - y))
    return np.array(found)


class Case(NamedTuple):
    """A model's log-probabilities and its dense divergence."""

    name: str
    logs: Logs
    rows: NDArray[np.float64]


def models(model: _models.LanguageModel) -> Iterator[tuple[str, Any]]:
    """Yield a model and its roundings, one at a time."""
    yield "", model.model
    for bits in BITS:
        yield f"int{bits}", changed(model.model, lambda w, _, b=bits: rounded(w, b))
    yield "noise", changed(model.model, noisy)


def changed(model: Any, change: Any) -> Any:
    """Return a copy of a model with changed matrices, except for the embeddings."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for name, w in made.named_parameters():
            if w.ndim == 2 and "embed" not in name:
                w.copy_(change(w, name))
    return made


def rounded(w: torch.Tensor, bits: int) -> torch.Tensor:
    """Return a matrix with weights quantized relative to the largest of their group."""
    groups = w.view(-1, GROUP)
    step = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return ((groups / step.clamp(min=1e-12)).round() * step).view_as(w)


def noisy(w: torch.Tensor, name: str) -> torch.Tensor:
    """Return a matrix, with noise in one layer."""
    if f"layers.{LAYER}.mlp.down" not in name:
        return w
    noise = torch.randn(w.shape, generator=torch.Generator().manual_seed(0))
    return w + noise * w.std() * LOUD


def logs_of(model: Any, pieces: Sequence[_make.Piece], size: int) -> Any:
    """Return the log-probabilities at the pieces' places [n, V]."""
    found = []
    for piece in pieces:
        first, last = piece.places[0], piece.places[-1] + 1
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*piece.tokens]])).logits
            own = logits[0, first:last, :size].double()
            found.append(torch.log_softmax(own, -1).float().numpy())
    return np.concatenate(found)


def truncated(p: Logs, q: Logs, k: int, tail: bool) -> float:
    """Return estimates from the top k, with a tail and renormalized."""
    found = []
    for x, y in zip(p, q, strict=True):
        top = np.argpartition(x, -k)[-k:]
        a, b = (np.exp(z[top].astype(np.float64)) for z in (x, y))
        if tail:
            a, b = (np.append(z, max(1 - z.sum(), 1e-12)) for z in (a, b))
        else:
            a, b = a / a.sum(), b / b.sum()
        found.append(a @ np.log(a / b))
    return float(np.mean(found))


def counts_of(codec: sqs.Codec, logs: Logs, seed: int) -> distill.Text:
    """Return a reference of rows, like a file's."""
    rng = np.random.default_rng(seed)
    rows = codec.quantize_unbiased_rows(logs, rng=rng)
    n = len(rows)
    own = logs[np.repeat(np.arange(n), np.diff(rows.offsets)), rows.token_ids]
    up = rng.random(own.size)
    kept = _header.of_steps(rows, _header.in_steps(rows, np.minimum(own, 0), up))
    blank = np.zeros(n)
    extras: Any = {"logprobs": kept, "token_logprobs": blank, "likeliest": blank}
    text = np.zeros(n + 1, np.uint32)
    return distill.Text(text, np.arange(n), rows, 1.0, False, extras)


def estimates(case: Case, reference: distill.Text) -> NDArray[Any]:
    """Return the estimates of all rows."""
    rows = reference.rows
    at = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
    blank = np.zeros(len(rows))
    told = {"logprobs": case.logs[at, rows.token_ids], "token_logprobs": blank}
    return _divergence.estimate_rows(reference, told | {"likeliest": blank})


def biases(cases: Sequence[Case], p: Logs, sizes: Sequence[int]) -> Table:
    """Return dense divergences, the text's error, and estimates from the top k."""
    title = "dense, with the error of the text over contexts and over rows; top K, in %"
    names = "KLD", "contexts", "rows", "20+tail", "64+tail", "64"
    made = table(title, "weights", *names)
    at = np.repeat(np.arange(len(sizes)), sizes)
    for case in cases:
        mean = _divergence._mean(case.rows, at)
        errors = mean.text, case.rows.std() / len(case.rows) ** 0.5
        shares = (100 * x / mean.value for x in errors)
        cut = (
            100 * (truncated(p, case.logs, k, tail) / mean.value - 1)
            for k, tail in ((20, True), (64, True), (64, False))
        )
        made.add_row(
            case.name,
            f"{mean.value:.5f}",
            *(f"{x:.1f}" for x in shares),
            *(f"{x:+.1f}" for x in cut),
        )
    return made


def sizes_table(
    path: Path, pieces: Sequence[_make.Piece], p: Logs, vocab: int
) -> Table:
    """Return the bytes per row in a file."""
    made = table("bytes a row", "resolution", "counts", "log p", "other", "all")
    prior = sqs.Prior.builtin("smollm2" if vocab == 49_152 else "gemma3")
    for resolution in RESOLUTIONS:
        codec = sqs.Codec(vocab, resolution, prior=prior)
        header = distill.Header(codec, extras=(*_header.EXTRAS,))
        file, start = path / f"{resolution}.parquet", 0
        with distill.Writer(file, header) as writer:
            for i, piece in enumerate(pieces):
                rng = np.random.default_rng(i)
                task = _tasks.Counting(i, *piece, header, rng)
                task.tell(p[start : start + len(piece.places)])
                start += len(piece.places)
                rows, told = task.answer
                assert rows is not None
                writer.write(task.tokens, rows, task.places, extras=told)
        found = distill.load(file).sizes()
        each = {k: v / found.distributions for k, v in found.column_bytes.items()}
        counts, logs = each.pop("packet"), each.pop("logprobs")
        other = sum(each.values())
        shown = counts, logs, other, counts + logs + other
        made.add_row(str(resolution), *(f"{x:.1f}" for x in shown))
    return made


def coverage(cases: Sequence[Case], p: Logs, sizes: Sequence[int], args: Any) -> Table:
    """Return how often dense means are within the reference's stated error."""
    title = f"{args.seeds} references of resolution {args.resolution}: the mean's error"
    names = "bias %", "± %", "true %", "stated", "covered", "flagged"
    made = table(title, "weights", *names)
    codec, n = sqs.Codec(p.shape[1], args.resolution), len(p)
    cuts = np.cumsum(sizes)[:-1]
    found: dict[str, list[Any]] = {case.name: [] for case in cases}
    for seed in range(args.seeds):
        reference = counts_of(codec, p, seed)
        for case in cases:
            own = estimates(case, reference)
            plain, both = own["plain"].mean(), (own["plain"] + own["control"]).mean()
            errors = (own[f"{x}_variance"].sum() ** 0.5 / n for x in ("plain", "both"))
            told = _divergence.summarize(np.split(own, cuts))
            chosen = told.mean.value, told.mean.reference, not told.is_trusted
            found[case.name].append((plain, both, chosen[0], *errors, *chosen[1:]))
    for case in cases:
        every, dense = np.array(found[case.name]), case.rows.mean()
        for i, kind in enumerate(("plain", "both", "chosen")):
            off, stated = every[:, i] - dense, every[:, 3 + i]
            covered, true = (abs(off) <= 1.96 * stated).mean(), off.std()
            shares = off.mean() / dense, true / len(every) ** 0.5 / dense, true / dense
            made.add_row(
                f"{case.name} {kind}",
                *(f"{100 * x:.3f}" for x in shares),
                f"x {(stated**2).mean() ** 0.5 / true:.2f}",
                f"{100 * covered:.1f} %",
                f"{100 * every[:, 6].mean():.1f} %",
            )
    return made


def load(name: str) -> tuple[_models.LanguageModel, str]:
    """Return a model and its text."""
    if name == SMOLLM2:
        return load_model(None, device="cpu"), manual()
    own = gemma3_pair()
    model = own.model, own.tokenizer, own.vocab_size, own.stop, own.summary
    kinds = [read_texts(held_out=held_out) for held_out in (True, False)]
    found = [kind[name] for name in kinds[0] if name != "chat" for kind in kinds]
    more = TEXTS.read_text("utf-8").splitlines()
    lines = [*chain(*found), *(line.partition("\t")[2] for line in more)]
    return _models.LanguageModel(*model), "\n".join(lines)


def main() -> None:
    """Compare, and print."""
    parser = command("kld.rounded", __doc__, contexts=2, seeds=3, size=64)
    add = parser.add_argument
    add("--model", choices=(SMOLLM2, GEMMA3), default=SMOLLM2)
    add("--contexts", type=int, default=6)
    add("--size", type=int, default=512, help="tokens per context")
    add("--seeds", type=int, default=2000, help="number of references")
    add("--resolution", type=int, default=32)
    args = parser.parse_args()
    console = Console()
    model, text = load(args.model)
    reader = ModelReader(model)
    pieces = _make.contexts(reader, text, args.size)[: args.contexts]
    every = models(model)
    p = logs_of(next(every)[1], pieces, model.vocab_size)
    cases = []
    for name, other in every:
        q = logs_of(other, pieces, model.vocab_size)
        cases.append(Case(name, q, divergences(p, q)))
    sizes = [len(piece.places) for piece in pieces]
    console.print(biases(cases, p, sizes))
    with TemporaryDirectory() as folder:
        console.print(sizes_table(Path(folder), pieces, p, model.vocab_size))
    console.print(coverage(cases, p, sizes, args))
    console.print(dim(about_line(about("torch"))))


if __name__ == "__main__":
    main()
