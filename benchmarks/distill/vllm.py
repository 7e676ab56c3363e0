"""Time a teacher inside vLLM beside vLLM's own lists of the likeliest tokens.

    python -m benchmarks.distill.vllm                      # by .venv-vllm: half an hour

SmolLM2 reads paragraphs of this project's documentation, in turns by `distill.make` and
by ``LLM.generate(max_tokens=1, prompt_logprobs=64)``, also without the tokens' words.
Times a token are of all processes. What the model alone takes is that of a row a text
or of no lists, and of the product with the head.
"""

import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch
from rich.console import Console
from tqdm import trange

import sqs_codec as sqs
from benchmarks.distill.shapes import sample
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec import distill
from sqs_codec.system.vllm import ModelReader
from sqs_codec.system.vllm._start import save_smollm2

SETTINGS = {"enable_prefix_caching": False, "enforce_eager": True, "block_size": 32}
SETTINGS |= {"kv_cache_memory_bytes": 1 << 30, "max_num_batched_tokens": 2048}


def now() -> Any:
    """Return the CPU time of this process and those below it, and what a clock says."""
    here = psutil.Process()
    times = (one.cpu_times() for one in (here, *here.children(recursive=True)))
    return np.array([sum(t.user + t.system for t in times), time.perf_counter()])


def main() -> None:
    """Measure, and print."""
    parser = command("distill.vllm", __doc__, texts=4, repeats=1)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    args, found = parser.parse_args(), defaultdict[str, list[Any]](list)
    with TemporaryDirectory() as folder:
        save_smollm2(f"{folder}/model")
        shared = {"dtype": args.dtype}
        reader = ModelReader(f"{folder}/model", options=SETTINGS, **shared)
        import vllm

        llm = vllm.LLM(f"{folder}/model", max_logprobs=64, **SETTINGS, **shared)
        texts = sample(reader.tokenizer, args.texts)
        codec = sqs.Codec(reader.vocab_size, 50, prior=sqs.Prior.builtin("smollm2"))
        head = torch.rand(reader.vocab_size, 576, dtype=getattr(torch, args.dtype))
        n = sum(map(len, texts))

        def make(*, last: bool = False) -> None:
            pieces = (distill.Piece(t, range(len(t))[-last:]) for t in texts)
            distill.make(Path(folder, str(time.time_ns())), codec, reader, pieces)

        def lists(**given: Any) -> None:
            asked = vllm.SamplingParams(max_tokens=1, **given)
            prompts = [{"prompt_token_ids": text} for text in texts]
            llm.generate(prompts, asked, use_tqdm=False)

        ways = {
            "distill.make": make,
            "its model": lambda: make(last=True),
            "prompt_logprobs=64": lambda: lists(prompt_logprobs=64),
            "without words": lambda: lists(prompt_logprobs=64, detokenize=False),
            "its model alone": lists,
            "the head": lambda: [head[:256] @ head.T for _ in range(0, n, 256)],
        }
        for i in trange(args.repeats + 1):
            for name, way in ways.items():
                before = now()
                way()
                found[name] += [now() - before] * (i > 0)  # the first warms up
        reader.close()
    made = table(f"{n} tokens", args.dtype, "CPU us", "ratio", "wall us", "ratio")
    for name, own in found.items():
        ratios = np.median(np.divide(found["prompt_logprobs=64"], own), 0)
        (cpu, wall), (less, quicker) = 1e6 / n * np.median(own, 0), ratios
        made.add_row(name, f"{cpu:.0f}", f"{less:.2f}", f"{wall:.0f}", f"{quicker:.2f}")
    console = Console()
    console.print(made, dim(about_line(about("torch", "transformers"))))


if __name__ == "__main__":
    main()
