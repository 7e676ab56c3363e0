"""The command ``sqs bits``: what a user's own logits cost, setting by setting."""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec._base.checks import look_like_probabilities
from sqs_codec._base.format import MAX_VOCAB, MIN_VOCAB
from sqs_codec._base.words import shown
from sqs_codec.cli.options import (
    HF_MODULES,
    SMOLLM2_MODULES,
    add_prior,
    add_temperature,
    check_folder,
    find_prior,
    has_packages,
    number,
    read_text,
)

DESCRIPTION = """\
Measures what the distributions of your own draft model cost: bits by every
coding and the total variation that is lost, for TopK and Threshold at many
parameters and resolutions. It names the cheapest setting that loses no more
than --tv on average, what a Conformal costs that drops as much as the
cheapest Threshold, and what the presets cost. It needs only NumPy, matplotlib
for --plot, and PyTorch and transformers for --texts.
"""

EXAMPLES = """\
examples:
  sqs bits logits.npy --temperature 0.7
  sqs bits logits.npy --tv 0.02 --json bits.json --plot bits.png
  sqs bits --model Qwen/Qwen2.5-0.5B-Instruct --texts book.txt mails.txt
"""

Rule = sqs.TopK | sqs.Threshold | sqs.Conformal

KS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BETAS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4)
RESOLUTIONS = (10, 16, 20, 30, 50, 70, 100, 150, 200, 300, 400, 700, 1000, 2000, 5000)
CODINGS = ("bitpack", "enumerative", "entropy")
PRESETS = ("thin", "balanced", "fat")

WINDOW = 256
"""Tokens that a model reads at once."""

MOST_WINDOWS = 8
"""Parts of the texts that a model reads, evenly spaced."""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add(
        "file",
        nargs="?",
        help="the logits, a .npy file of floats of shape [N, V]; - is standard input",
    )
    add(
        "--texts",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="instead of logits: files of UTF-8, for a model to read parts of",
    )
    add(
        "--model",
        metavar="MODEL",
        help="a Hugging Face model, by directory or name, for --texts (default: "
        "SmolLM2)",
    )
    add_temperature(add, "of the distributions", default=1.0, least=1e-3)
    add(
        "--tv",
        type=number(float, 0, 1),
        default=0.05,
        help="the mean total variation that the recommendation may lose "
        "(default: %(default)s)",
    )
    add(
        "--rows",
        type=number(int, 1),
        default=300,
        metavar="N",
        help="measure at most so many rows, evenly spaced (default: %(default)s)",
    )
    add_prior(add)
    add("--json", type=Path, metavar="FILE", help="write every setting, for machines")
    add("--plot", type=Path, metavar="FILE", help="draw bits against TV, .png or .svg")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit status."""
    if bool(args.file) == bool(args.texts):
        args.usage_error("give either a file of logits or --texts")
    if args.model and not args.texts:
        args.usage_error("--model goes with --texts")
    if args.plot and not has_packages("bits --plot", ["matplotlib"], extra="plot"):
        return 1
    needed = [*HF_MODULES, *(() if args.model else SMOLLM2_MODULES)]
    if args.texts and not has_packages("bits --texts", needed, extra="hf"):
        return 1
    for file in filter(None, (args.json, args.plot)):
        check_folder(file)
    prior = find_prior(args.prior)
    file, model = args.file, None
    if args.texts:
        file = ", ".join(map(str, args.texts))
        logits, model = read(args.texts, args.model, args.rows)
    else:
        logits = open_logits(file)
        file = "standard input" if file == "-" else file
    costs = measure(logits, file, args.temperature, args.tv, args.rows, prior, model)
    print(shown(report(costs), None, lines=True), flush=True)
    if args.json:
        args.json.write_text(json.dumps(costs.as_json(), indent=1) + "\n", "utf-8")
    if args.plot:
        plot(costs, args.plot)
    return 0


@dataclass(frozen=True)
class Point:
    """What one rule and resolution cost, means over all rows.

    Attributes
    ----------
    keep : TopK, Threshold or Conformal
    resolution : int
    tokens : float
        Tokens sent: those kept that have a count.
    dropped_mass : float
        Probability of the tokens not kept.
    tv : float
        Total variation between softmax(logits / temperature) and what is sent.
    bits : dict of str to float
        By coding; infinite where the coding can't hold a support so large.
    """

    keep: Rule
    resolution: int
    tokens: float
    dropped_mass: float
    tv: float
    bits: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return what the point says in plain types; bits are None where infinite."""
        return {
            "rule": type(self.keep).__name__,
            **_parameters(self.keep),
            "resolution": self.resolution,
            "tokens": self.tokens,
            "dropped_mass": self.dropped_mass,
            "tv": self.tv,
            "bits": {
                coding: bits if math.isfinite(bits) else None
                for coding, bits in self.bits.items()
            },
        }


@dataclass(frozen=True)
class Costs:
    """What a file of logits costs.

    Attributes
    ----------
    measured : dict
        The file, its rows, the temperature, and who read it if it has texts.
    points : list of Point
        Every rule at every resolution.
    best : list of Point
        For each kind of rule the point of fewest bits in the entropy coding whose
        mean TV is within `most_tv`, and then a `Conformal` that drops the mass of
        the `Threshold` found. Empty where no point is.
    most_tv : float
    """

    measured: dict[str, Any]
    points: list[Point]
    best: list[Point]
    most_tv: float

    def as_json(self) -> dict[str, Any]:
        """Return everything in plain types."""
        return {
            "measured": self.measured,
            "points": [point.as_json() for point in self.points],
            "most_tv": self.most_tv,
            "best": [point.as_json() for point in self.best],
        }


def read(
    texts: Sequence[Path], name: str | None, most_rows: int
) -> tuple[NDArray[np.float32], str]:
    """Return logits of a model on texts, about so many rows, and what it is.

    Raises
    ------
    OSError, ValueError
        A text or the model can't be read; the message says which.
    """
    from sqs_codec.system.hf import CachedModel, load_model

    contents = [read_text(path) for path in texts]
    model = load_model(name)
    parts: list[list[int]] = []
    for path, text in zip(texts, contents, strict=True):
        ids = model.tokenizer(text, verbose=False)["input_ids"]
        if not ids:
            raise ValueError(f"{path} has no tokens")
        parts += [ids[i : i + WINDOW] for i in range(0, len(ids), WINDOW)]
    chosen = [parts[i] for i in _spread(len(parts), MOST_WINDOWS)]
    step = math.ceil(sum(map(len, chosen)) / most_rows)
    rows = [
        CachedModel(model.model, model.vocab_size).logits(ids, len(ids))[::step].copy()
        for ids in chosen
    ]
    return np.concatenate(rows), model.summary


def _spread(number: int, most: int) -> NDArray[np.intp]:
    """Return at most so many of the first numbers, evenly spaced."""
    return np.linspace(0, number - 1, min(number, most)).round().astype(np.intp)


def open_logits(path: str | Path) -> NDArray[np.floating]:
    """Map a .npy file of logits into memory, or read one from standard input.

    Returns
    -------
    ndarray of float16, float32 or float64 [N, V]

    Raises
    ------
    OSError
        The file can't be read.
    ValueError
        It holds something else, or probabilities; the message says what.
    """
    try:
        if str(path) == "-":
            path = "standard input"
            array = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a .npy file of numbers") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} holds several arrays, expected one: a .npy file")
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.ndim != 2 or kind != "f" or size not in (2, 4, 8):
        raise ValueError(
            f"{path} must hold float16, float32 or float64 of shape [N, V], "
            f"got {array.dtype} of shape {list(array.shape)}"
        )
    rows, vocab_size = array.shape
    if rows == 0 or not MIN_VOCAB <= vocab_size <= MAX_VOCAB:
        raise ValueError(
            f"{path} must hold at least one row of {MIN_VOCAB} to {MAX_VOCAB} logits, "
            f"got {rows} of {vocab_size}"
        )
    if look_like_probabilities(array[0]):
        raise ValueError(
            f"{path} must hold logits, and row 0 looks like probabilities: none is "
            "negative, and they sum to 1"
        )
    return array


def quantize_row(
    codec: sqs.Codec,
    file: str | Path,
    number: int,
    row: NDArray[np.floating],
    keep: Rule,
    temperature: float,
) -> sqs.SparseDistribution:
    """Quantize a row of a file, which an error names."""
    try:
        return codec.quantize(row, keep, temperature=temperature)
    except ValueError as error:
        raise ValueError(f"{file}: row {number}: {error}") from error


def measure(
    logits: NDArray[np.floating],
    file: str,
    temperature: float,
    most_tv: float,
    most_rows: int,
    prior: sqs.Prior | None = None,
    model: str | None = None,
) -> Costs:
    """Measure every setting on at most so many rows of a file, evenly spaced.

    Raises
    ------
    ValueError
        A row is not what it must be, or the prior; the message names the file.
    """
    total = len(logits)
    if prior is not None and prior.vocab_size != logits.shape[1]:
        raise ValueError(
            f"{file} has logits of {logits.shape[1]} tokens, and the prior is made for "
            f"{prior.vocab_size}"
        )
    chosen = _spread(total, most_rows)
    rules: list[Rule] = [*map(sqs.TopK, KS), *map(sqs.Threshold, BETAS)]
    settings = [(keep, resolution) for keep in rules for resolution in RESOLUTIONS]
    points = _measure(file, logits, chosen, temperature, prior, settings)
    best = recommend(points, most_tv)
    for fixed in best[-1:]:
        if isinstance(fixed.keep, sqs.Threshold):
            # Of two digits, so that what is printed is what was measured.
            alpha = float(f"{fixed.dropped_mass:.2g}")
            steered = sqs.Conformal(alpha=alpha, beta=fixed.keep.beta)
            settings = [(steered, fixed.resolution)]
            best += _measure(file, logits, chosen, temperature, prior, settings)
    measured = {
        "file": file,
        "model": model,
        "rows": len(chosen),
        "rows_in_file": total,
        "vocab_size": logits.shape[1],
        "dtype": logits.dtype.name,
        "temperature": temperature,
        "prior": prior and prior.digest.hex(),
    }
    return Costs(measured, points, best, most_tv)


def _measure(
    file: str,
    logits: NDArray[np.floating],
    chosen: NDArray[np.intp],
    temperature: float,
    prior: sqs.Prior | None,
    settings: Sequence[tuple[Rule, int]],
) -> list[Point]:
    """Return what each setting costs on some rows, which rules see in their order."""
    native = logits.dtype.newbyteorder("=")
    codecs = {
        resolution: [
            sqs.Codec(logits.shape[1], resolution, c, prior if c == "entropy" else None)
            for c in CODINGS
        ]
        for _, resolution in settings
    }
    rules = [copy.copy(keep) for keep, _ in settings]  # a point names one as it began
    sums = np.zeros((len(settings), 3 + len(CODINGS)))
    for i in chosen:
        row = np.array(logits[i], native)
        probs = _softmax(row, temperature)
        for total, keep, (_, resolution) in zip(sums, rules, settings, strict=True):
            by_coding = codecs[resolution]
            q = quantize_row(by_coding[0], file, i, row, keep, temperature)
            dropped = q.dropped_mass or 0.0
            keep.update(dropped)
            lost = np.maximum(0.0, q.probs - probs[q.token_ids]).sum()
            bits = [_bits(codec, q) for codec in by_coding]
            total += [len(q.token_ids), dropped, lost, *bits]
    points = []
    for (keep, resolution), total in zip(settings, sums, strict=True):
        tokens, dropped, lost, *bits = (total / len(chosen)).tolist()
        coded = dict(zip(CODINGS, bits, strict=True))
        points.append(Point(keep, resolution, tokens, dropped, lost, coded))
    return points


def _softmax(row: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    # Of a row that quantization refuses it may be anything.
    with np.errstate(over="ignore", invalid="ignore"):
        x = row.astype(np.float64)
        weights = np.exp((x - x.max()) / temperature)
        return np.asarray(weights / weights.sum())


def _bits(codec: sqs.Codec, q: sqs.SparseDistribution) -> float:
    return codec.bits(q) if len(q.token_ids) <= codec.max_survivors else math.inf


def recommend(points: Iterable[Point], most_tv: float) -> list[Point]:
    """Return each kind of rule's point of fewest bits, in the entropy coding."""
    best: dict[type, Point] = {}
    for point in points:
        known = best.get(type(point.keep))
        if point.tv <= most_tv and (known is None or _cost(point) < _cost(known)):
            best[type(point.keep)] = point
    return list(best.values())


def _cost(point: Point) -> tuple[float, float]:
    return point.bits["entropy"], point.tv


def pareto(bits: Iterable[float], loss: Iterable[float]) -> NDArray[np.int64]:
    """Which points are such that none has both fewer bits and less loss.

    Parameters
    ----------
    bits, loss : iterable of float [N]
        Points with infinite bits are left out.

    Returns
    -------
    ndarray of int64 [n]
        Which of the N, by ascending loss and hence descending bits. It is the plain
        front: points above its lower convex hull stay.

    Examples
    --------
    >>> pareto(bits=[10, 20, 20, 40, 50], loss=[0.5, 0.4, 0.3, 0.1, 0.2]).tolist()
    [3, 2, 0]
    """
    spent, lost = np.fromiter(bits, np.float64), np.fromiter(loss, np.float64)
    front: list[int] = []
    for index in np.lexsort((lost, spent)):
        if math.isfinite(spent[index]) and (not front or lost[index] < lost[front[-1]]):
            front.append(int(index))
    return np.asarray(front[::-1], np.int64)


def report(costs: Costs) -> str:
    """Render each rule, swept at its best resolution, and the best points."""
    m, most = costs.measured, f"{costs.most_tv:g}"
    lines = [
        *([f"{m['file']}, read by {m['model']}:"] if m["model"] else []),
        f"{m['rows']} of {m['rows_in_file']} rows of {m['vocab_size']} logits, "
        f"{m['dtype']}, at temperature {m['temperature']:g}.",
        "",
        "Means over these rows: tokens sent, mass dropped, total variation lost, and",
        "bits of a distribution by coding, each rule at one resolution l.",
    ]
    head = _line("rule", "l", "tokens", "dropped", "TV", *CODINGS)
    for rule in (sqs.TopK, sqs.Threshold):
        points = [point for point in costs.points if isinstance(point.keep, rule)]
        best = recommend(points, costs.most_tv)
        shown = best[0] if best else min(points, key=lambda point: point.tv)
        why = (
            f"takes the fewest bits, entropy coding, for a mean TV up to {most}"
            if best
            else f"has the least TV; none has a mean TV up to {most}"
        )
        lines += ["", f"l = {shown.resolution} {why}:", head]
        lines += [_point(p) for p in points if p.resolution == shown.resolution]
    if costs.best:
        lines += [
            "",
            f"Fewest bits, entropy coding, with a mean TV up to {most}:",
            head,
        ]
        lines += map(_point, costs.best)
    else:
        lines += ["", f"No setting has a mean TV up to {most}. The least has:", head]
        lines.append(_point(min(costs.points, key=lambda point: point.tv)))
    lines += ["", "The presets, each fitted to a speed of link, whatever the TV:", head]
    lines += [_point(p, f"{name}: ") for name, p in of_presets(costs).items()]
    return "\n".join(lines)


def of_presets(costs: Costs) -> dict[str, Point]:
    """Return the point of each preset, by its name."""
    found = {(_name(point.keep), point.resolution): point for point in costs.points}
    presets = map(sqs.preset, PRESETS)
    return {made.name: found[f"TopK({made.k})", made.resolution] for made in presets}


def _point(point: Point, called: str = "") -> str:
    bits = (f"{b:.1f}" if math.isfinite(b) else "-" for b in point.bits.values())
    numbers = f"{point.tokens:.1f}", f"{point.dropped_mass:.4f}", f"{point.tv:.4f}"
    return _line(called + _name(point.keep), str(point.resolution), *numbers, *bits)


def _line(rule: str, *cells: str) -> str:
    widths = 6, 8, 8, 8, 9, 12, 9
    # The longest rule has a line of its own.
    head = f"{rule:<20}" if len(rule) <= 20 else f"{rule}\n{'':20}"
    return head + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))


def _name(keep: Rule) -> str:
    """Return the rule as Python makes it."""
    values = _parameters(keep)
    if len(values) == 1:
        return f"{type(keep).__name__}({next(iter(values.values())):g})"
    named = (f"{name}={value:g}" for name, value in values.items())
    return f"{type(keep).__name__}({', '.join(named)})"


def _parameters(keep: Rule) -> dict[str, float]:
    if isinstance(keep, sqs.TopK):
        return {"k": keep.k}
    if isinstance(keep, sqs.Threshold):
        return {"beta": keep.beta}
    return {"alpha": keep.alpha, "eta": keep.eta, "beta": keep.threshold}


def plot(costs: Costs, path: Path) -> None:
    """Draw the front of each coding, bits against total variation."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7.2, 5), layout="constrained")
    axes = figure.subplots()
    tv = [point.tv for point in costs.points]
    styles = ("tab:red", "--", "s"), ("tab:orange", "-.", "D"), ("tab:blue", "-", "o")
    for coding, (color, line, marker) in zip(CODINGS, styles, strict=True):
        bits = [point.bits[coding] for point in costs.points]
        front = pareto(bits, tv)
        axes.plot(
            [tv[i] for i in front],
            [bits[i] for i in front],
            color=color,
            linestyle=line,
            marker=marker,
            markersize=4,
            label=coding,
        )
    axes.axvline(costs.most_tv, color="0.6", linewidth=0.8, label="TV allowed")
    for name, point in of_presets(costs).items():
        place = point.tv, point.bits["entropy"]
        axes.plot(*place, "k*", markersize=10)
        axes.annotate(
            name, place, (-5, -8), textcoords="offset points", ha="right", va="top"
        )
    axes.set(xscale="log", yscale="log", xlabel="mean TV(draft, sent)")
    axes.set_ylabel("bits per distribution")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="both", color="0.92")
    axes.legend()
    m = costs.measured
    what = m["model"] or Path(m["file"]).name
    axes.set_title(f"{what}, T = {m['temperature']:g}", fontsize="medium")
    figure.savefig(path, dpi=110)
