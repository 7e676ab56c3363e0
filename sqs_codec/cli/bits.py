"""The command ``sqs bits``: bits and errors for a user's own logits, by setting."""

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec import bits
from sqs_codec._base.words import shown
from sqs_codec.bits import Point
from sqs_codec.cli import options
from sqs_codec.cli.files import open_logits

DESCRIPTION = """\
Measures the distributions of your own draft model: bits with every coding, and
the total variation (TV) from the draft, for TopK and Threshold at many parameters
and resolutions. It first prints the settings with the fewest bits at a mean TV of at
most --tv, including a Conformal rule that drops as much as the best Threshold.
--plot needs matplotlib; --texts needs PyTorch and transformers.
"""

EXAMPLES = """\
examples:
  sqs bits logits.npy --temperature 0.7
  sqs bits logits.npy --tv 0.02 --json bits.json --plot bits.png
  sqs bits --model Qwen/Qwen2.5-0.5B-Instruct --texts book.txt mails.txt
"""

WINDOW = 256
"""Tokens per forward pass."""

MOST_WINDOWS = 8
"""Maximum number of parts of the texts to read, evenly spaced."""


def fill(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    said = ".npy file of float logits with shape [N, V]; - reads standard input"
    add("file", nargs="?", help=said)
    said = "instead of logits: UTF-8 text files, parts of which a model reads"
    add("--texts", **options.FILE, nargs="+", help=said)
    said = f"model for --texts: {options.MODEL} (default: SmolLM2)"
    add("--model", metavar="MODEL", help=said)
    said = "temperature of your draft"
    options.add_temperature(add, said, default=1.0, least=1e-3)
    said = "maximum mean TV of the recommendation"
    add("--tv", **options.number(float, 0, 1, None), default=0.05, help=said)
    said = "maximum number of rows to measure, evenly spaced"
    add("--rows", **options.number(int, 1), default=300, help=said)
    options.add_prior(add, default="none")
    add("--json", **options.FILE, help="write all settings to a JSON file")
    add("--plot", **options.FILE, help="plot bits against TV to a .png or .svg file")


def run(args: argparse.Namespace) -> int:
    if bool(args.file) == bool(args.texts):
        args.usage_error("give either a file of logits or --texts")
    if args.model and not args.texts:
        args.usage_error("--model needs --texts")
    if args.plot and not options.has_packages("bits --plot", "plot"):
        return 1
    own = "hf" if args.model else "demo"
    if args.texts and not options.has_packages("bits --texts", own):
        return 1
    for file in filter(None, (args.json, args.plot)):
        options.check_folder(file)
    prior = options.find_prior(args.prior)
    file, model = args.file, None
    if args.texts:
        file = ", ".join(map(str, args.texts))
        logits, model = read(args.texts, args.model, args.rows)
    else:
        logits = open_logits(file)
        file = "standard input" if file == "-" else file
    measured = {
        "file": file,
        "model": model,
        "rows": min(args.rows, len(logits)),
        "rows_in_file": len(logits),
        "vocab_size": logits.shape[1],
        "dtype": logits.dtype.name,
        "temperature": args.temperature,
        "prior": prior and prior.digest.hex(),
    }
    try:
        points, best = measure(logits, prior, args)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    said = report(measured, points, best, args.tv)
    print(shown(said, None, lines=True), flush=True)
    if args.json:
        costs = {"measured": measured, "most_tv": args.tv}
        costs |= {"points": [*map(as_json, points)], "best": [*map(as_json, best)]}
        args.json.write_text(json.dumps(costs, indent=1) + "\n", "utf-8")
    if args.plot:
        plot(measured, points, args.tv, args.plot)
    return 0


def measure(
    logits: NDArray[np.floating], prior: sqs.Prior | None, args: argparse.Namespace
) -> tuple[list[Point], list[Point]]:
    """Return all points and the best ones; a `Conformal` follows a best Threshold."""
    how = partial(bits.measure, logits, temperature=args.temperature, prior=prior)
    how = partial(how, most_rows=args.rows)
    points = how()
    best = bits.recommend(points, args.tv)
    for fixed in best[-1:]:
        if isinstance(fixed.keep, sqs.Threshold):
            # Rounded to two digits before measuring, so that the print is exact.
            alpha = float(f"{fixed.dropped_mass:.2g}")
            steered = sqs.Conformal(alpha=alpha, beta=fixed.keep.beta)
            best += how([steered], [fixed.resolution])
    return points, best


def as_json(point: Point) -> dict[str, Any]:
    """Return a point in plain types; infinite bits become None."""
    return {
        "rule": type(point.keep).__name__,
        **vars(point.keep),
        "resolution": point.resolution,
        "tokens": point.tokens,
        "dropped_mass": point.dropped_mass,
        "tv": point.tv,
        "bits": {c: b if math.isfinite(b) else None for c, b in point.bits.items()},
    }


def read(
    texts: Sequence[Path], name: str | None, most_rows: int
) -> tuple[NDArray[np.float32], str]:
    """Return about `most_rows` logits of a model on texts, and the model's summary."""
    from sqs_codec.system.hf import CachedModel, load_model

    contents = [options.read_text(path) for path in texts]
    model = load_model(name)
    parts: list[list[int]] = []
    for path, text in zip(texts, contents, strict=True):
        ids = model.tokenizer(text, verbose=False)["input_ids"]
        if not ids:
            raise ValueError(f"{path} has no tokens")
        parts += [ids[i : i + WINDOW] for i in range(0, len(ids), WINDOW)]
    spread = np.linspace(0, len(parts) - 1, min(len(parts), MOST_WINDOWS))
    chosen = [parts[i] for i in spread.round().astype(int)]
    step = math.ceil(sum(map(len, chosen)) / most_rows)
    rows = [
        CachedModel(model.model, model.vocab_size).logits(ids, len(ids))[::step].copy()
        for ids in chosen
    ]
    return np.concatenate(rows), model.summary


def report(
    m: dict[str, Any], points: list[Point], best: list[Point], most_tv: float
) -> str:
    """Render the best points, the presets, and each rule at its best resolution."""
    most, given = f"{most_tv:g}", m["temperature"]
    other = " (set your draft's with --temperature)" if given == 1 else ""
    head = _line("rule", "l", "tokens", "dropped", "TV", *bits.CODINGS)
    if best:
        lines = [f"Fewest bits with entropy coding, at a mean TV of at most {most}:"]
        lines += [head, *map(_point, best)]
    else:
        lines = [f"No setting has a mean TV of at most {most}. The smallest:", head]
        lines.append(_point(min(points, key=lambda point: point.tv)))
    lines += ["", "Settings for links of different speed, with any TV:", head]
    lines += [_point(p, f"{name}: ") for name, p in of_settings(points).items()]
    for rule in (sqs.TopK, sqs.Threshold):
        swept = [point for point in points if isinstance(point.keep, rule)]
        cheapest = bits.recommend(swept, most_tv)
        shown = cheapest[0] if cheapest else min(swept, key=lambda point: point.tv)
        why = "fewest bits with entropy coding" if cheapest else "smallest TV"
        lines += ["", f"{rule.__name__} at l = {shown.resolution} ({why}):", head]
        lines += [_point(p) for p in swept if p.resolution == shown.resolution]
    return "\n".join(
        [
            *lines,
            "",
            f"{m['rows']} of {m['rows_in_file']} rows of {m['vocab_size']} logits, "
            f"{m['dtype']}.",
            f"Temperature {given:g}{other}.",
            *([f"{m['file']}, read by {m['model']}."] if m["model"] else []),
            "Means over rows: tokens kept, mass dropped, TV from the draft, and bits",
            "per distribution with each coding. l is the resolution.",
        ]
    )


def of_settings(points: Iterable[Point]) -> dict[str, Point]:
    """Return the point of each of `sqs.SETTINGS`, by name."""
    found = {(point.keep, point.resolution): point for point in points}
    table = sqs.SETTINGS.items()
    return {name: found[sqs.TopK(k), resolution] for name, (k, resolution) in table}


def _point(point: Point, called: str = "") -> str:
    spent = (f"{b:.1f}" if math.isfinite(b) else "-" for b in point.bits.values())
    numbers = f"{point.tokens:.1f}", f"{point.dropped_mass:.4f}", f"{point.tv:.4f}"
    first, *more = vars(point.keep).values()
    name = repr(point.keep) if more else f"{type(point.keep).__name__}({first:g})"
    return _line(called + name, str(point.resolution), *numbers, *spent)


def _line(rule: str, *cells: str) -> str:
    widths = 6, 8, 8, 8, 9, 12, 9
    # Long rules get their own line.
    head = f"{rule:<20}" if len(rule) <= 20 else f"{rule}\n{'':20}"
    return head + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))


def pareto(bits: Iterable[float], loss: Iterable[float]) -> NDArray[np.int64]:
    """Return the indices of points that no other beats in both, by ascending loss."""
    spent, lost = np.fromiter(bits, np.float64), np.fromiter(loss, np.float64)
    front: list[int] = []
    for index in np.lexsort((lost, spent)):
        if math.isfinite(spent[index]) and (not front or lost[index] < lost[front[-1]]):
            front.append(int(index))
    return np.asarray(front[::-1], np.int64)


def plot(
    measured: dict[str, Any], points: list[Point], most_tv: float, path: Path
) -> None:
    """Plot bits against total variation, the best points of each coding."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7.2, 5), layout="constrained")
    axes = figure.subplots()
    tv = np.array([point.tv for point in points])
    styles = ("tab:red", "s--"), ("tab:orange", "D-."), ("tab:blue", "o-")
    for coding, (color, style) in zip(bits.CODINGS, styles, strict=True):
        spent = np.array([point.bits[coding] for point in points])
        front = pareto(spent, tv)
        (line,) = axes.plot(tv[front], spent[front], style, label=coding)
        line.set(color=color, markersize=4)
    axes.axvline(most_tv, color="0.6", linewidth=0.8, label="maximum TV")
    for name, point in of_settings(points).items():
        place = point.tv, point.bits["entropy"]
        axes.plot(*place, "k*", markersize=10)
        axes.annotate(
            name, place, (-5, -8), textcoords="offset points", ha="right", va="top"
        )
    axes.set(xscale="log", yscale="log", xlabel="mean TV from the draft")
    axes.set_ylabel("bits per distribution")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="both", color="0.92")
    axes.legend()
    what = measured["model"] or Path(measured["file"]).name
    axes.set_title(f"{what}, T = {measured['temperature']:g}", fontsize="medium")
    figure.savefig(path, dpi=110)
