"""Run the race of sqs demo over its own thin link and over the relay's, in turns.

python -m benchmarks.demo          # two minutes on two cores
python -m benchmarks.demo --quick  # the same in miniature
"""

import argparse
import statistics

import torch
from rich.console import Console

import sqs_codec as sqs
from benchmarks.relay import Link, Relay
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec.cli.demo.command import PROMPT
from sqs_codec.cli.demo.race import Race
from sqs_codec.cli.demo.server import Server
from sqs_codec.system.edge import ShapedLink
from sqs_codec.system.hf import Draft, load_model
from sqs_codec.system.serve import connect
from sqs_codec.system.session import Sampling, Setting

RATE, TRIP = 1e5, 0.1
"""The demo's, in bits a second up and seconds of a round trip."""


def main() -> None:
    """Run the comparison and print it."""
    parser = command("demo", __doc__, repeats=1, max_tokens=6, target_ms=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--target-ms", type=float, default=120.0)
    args = parser.parse_args()
    options = ["--dtype", "float16", "--target-ms", f"{args.target_ms:g}"]
    with Server(options) as server:
        races = _run(args, server)
        summary = server.summary
    report = table("tokens a second", "", "ShapedLink", "relay", "ratio", "of pairs")
    for way in races[0][0].figures:
        ours, theirs = (
            [race.figures[way].tokens_per_second for race in turn]
            for turn in zip(*races, strict=True)
        )
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        cells = (*map(statistics.median, (ours, theirs, ratios)), min(ratios))
        numbers = [f"{number:.2f}" for number in cells[:3]]
        report.add_row(way, *numbers, f"{min(ratios):.2f} to {max(ratios):.2f}")
    step = statistics.median(race.step_seconds for pair in races for race in pair)
    said = f"{summary}; 100 kbit/s, 100 ms; a draft step {1e3 * step:.0f} ms.\n"
    Console().print(report, dim(said), dim(about_line(about("torch"))))


def _run(args: argparse.Namespace, server: Server) -> list[tuple[Race, Race]]:
    """Write each way by turns over both links."""
    torch.set_num_threads(1)
    model = load_model(None, drop_layers=2, dtype="auto", drafts=True)
    draft = Draft(model.model, model.tokenizer)
    prompt = draft.encode_prompt(PROMPT)
    setting = Setting(
        sqs.Codec(draft.vocab_size, prior=sqs.Prior.builtin("smollm2")), sqs.TopK(64)
    )
    server.wait()
    port = int(server.address.rpartition(":")[2])
    races = []
    for seed in range(args.repeats):
        how = {"seed": seed, "max_tokens": args.max_tokens}
        ours, theirs = (Race(draft, setting, Sampling(0.7), **how) for _ in range(2))
        races.append((ours, theirs))
        for way in ours.figures:
            plain = connect(server.address, transport="datagram", insecure=True)
            list(ours.write(way, prompt, ShapedLink(plain, RATE, TRIP)))
            with Relay(port, Link(RATE, TRIP)) as relay:
                there = f"127.0.0.1:{relay.port}"
                link = connect(there, transport="datagram", insecure=True)
                list(theirs.write(way, prompt, link))
    return races


if __name__ == "__main__":
    main()
