"""``sqs distill import`` of what vLLM's Python API returns."""

import json

import numpy as np
import torch
import transformers
import vllm

from sqs_codec import distill
from sqs_codec.cli import main as cli
from tests.system.vllm.kit import PADDED, SEED, save_tiny

PROMPTS = [[1, 2, 3, 4, 5], [50, 60], [7]]


def outputs(model):
    """What it writes after the prompts, with lists in both of their forms."""
    llm = vllm.LLM(
        model,
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        kv_cache_memory_bytes=1 << 24,
        max_model_len=64,
        use_tqdm_on_load=False,
    )
    for is_flat in (False, True):
        how = vllm.SamplingParams(
            temperature=2.0,
            seed=SEED,
            max_tokens=4,
            logprobs=6,
            prompt_logprobs=3,
            flat_logprobs=is_flat,
            detokenize=False,
        )
        prompts = [{"prompt_token_ids": prompt} for prompt in PROMPTS]
        yield from llm.generate(prompts, how, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()


def test_import_of_real_outputs(tmp_path):
    """Each list is what the model says of that token."""
    model = save_tiny(tmp_path / "model", "Llama")
    lists, kept = tmp_path / "lists.jsonl", tmp_path / "teacher.parquet"
    lines = [json.dumps(output, default=vars) for output in outputs(model)]
    lists.write_text("\n".join(lines))
    size = ["--vocab-size", str(PADDED), "--resolution", "65536"]
    assert cli.main(["distill", "import", str(lists), *size, "-o", str(kept)]) == 0
    judge = transformers.AutoModelForCausalLM.from_pretrained(model)
    dataset = distill.open(kept)
    assert len(dataset) == 6
    for sequence in dataset:
        tokens = torch.tensor(sequence.tokens.astype(np.int64))
        np.testing.assert_array_equal(sequence.places, np.arange(len(tokens) - 1))
        with torch.inference_mode():
            own = judge(tokens[None]).logits[0].softmax(-1).double().numpy()
        for row, p in zip(sequence.rows, own, strict=False):
            listed = row.token_ids[row.token_ids < PADDED]
            exact = np.append(p[listed], 1 - p[listed].sum())
            probs = row.to_dense(np.float64)
            found = np.append(probs[listed], probs[PADDED])
            np.testing.assert_allclose(found, exact, atol=2e-4)
            top = np.argsort(-p)[:3]
            assert {*top[p[top] > 1e-3]} <= {*listed}
