"""GGUF files small enough to be made here."""

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

WORDS = ["<unk>", "<s>", "</s>", "\u2581the", "\u2581fox", "  ", "[PAD6]", "[PAD7]"]
"""As a converter writes them: before, the sixth was U+2581 twice, and that was all."""

WIDTH = 32


def write_model(
    path: Path,
    architecture: str,
    words: list[str] = WORDS,
    *,
    context: int = 64,
    tensors: Mapping[str, NDArray[np.float32]] | None = None,
    template: str | None = None,
    sampling: dict[str, float] | None = None,
    pooling: bool = False,
) -> Path:
    """Write a ``"llama"``, ``"mamba"`` or ``"lfm2"``, of weights random or given.

    The last has a layer of each kind.
    """
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2 if architecture == "lfm2" else 1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_head_count(2)
    writer.add_head_count_kv([0, 2] if architecture == "lfm2" else 2)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.NORMAL] * 2
    kinds += [gguf.TokenType.USER_DEFINED] * (len(words) - 5)
    for i, word in enumerate(words):
        if word.startswith("<0x"):
            kinds[i] = gguf.TokenType.BYTE
    writer.add_token_types(kinds)
    if template is not None:
        writer.add_chat_template(template)
    for name, value in (sampling or {}).items():
        add = writer.add_int32 if isinstance(value, int) else writer.add_float32
        add(f"general.sampling.{name}", value)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if architecture == "mamba":
        writer.add_ssm_conv_kernel(4)
        writer.add_ssm_inner_size(2 * WIDTH)
        writer.add_ssm_state_size(4)
        writer.add_ssm_time_step_rank(2)
    if architecture == "lfm2":
        writer.add_shortconv_l_cache(3)
        writer.add_vocab_size(len(words))
    if pooling:
        writer.add_pooling_type(gguf.PoolingType.LAST)
    rng = np.random.default_rng(0)
    for name, shape in _tensors(architecture, len(words)).items():
        ones = name.endswith("norm.weight")
        values = np.ones(shape) if ones else rng.normal(0, 0.3, shape)
        if name.endswith("ssm_a"):
            values = -np.abs(values)
        values = (tensors or {}).get(name, values)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(architecture: str, size: int) -> dict[str, tuple[int, ...]]:
    inner = 2 * WIDTH
    square = (WIDTH, WIDTH)
    names = ("attn_q", "attn_k", "attn_v", "attn_output")
    attention = {f"{name}.weight": square for name in names}
    names = ("ffn_gate", "ffn_up", "ffn_down")
    forward = {f"{name}.weight": square for name in names}
    forward["ffn_norm.weight"] = (WIDTH,)
    blocks: list[dict[str, tuple[int, ...]]]
    if architecture == "llama":
        blocks = [attention | forward]
    elif architecture == "lfm2":
        conv = {"conv": (WIDTH, 3), "in_proj": (3 * WIDTH, WIDTH), "out_proj": square}
        blocks = [
            {f"shortconv.{name}.weight": shape for name, shape in conv.items()},
            {f"attn_{name}_norm.weight": (WIDTH // 2,) for name in "qk"} | attention,
        ]
        blocks = [block | forward for block in blocks]
    else:
        blocks = [
            {
                "ssm_in.weight": (2 * inner, WIDTH),
                "ssm_conv1d.weight": (inner, 4),
                "ssm_conv1d.bias": (inner,),
                "ssm_x.weight": (2 + 2 * 4, inner),
                "ssm_dt.weight": (inner, 2),
                "ssm_dt.bias": (inner,),
                "ssm_a": (inner, 4),
                "ssm_d": (inner,),
                "ssm_out.weight": (WIDTH, inner),
            }
        ]
    norm = "token_embd_norm" if architecture == "lfm2" else "output_norm"
    return {
        "token_embd.weight": (size, WIDTH),
        f"{norm}.weight": (WIDTH,),
        "output.weight": (size, WIDTH),
        **{
            f"blk.{i}.{name}": shape
            for i, block in enumerate(blocks)
            for name, shape in ({"attn_norm.weight": (WIDTH,)} | block).items()
        },
    }
