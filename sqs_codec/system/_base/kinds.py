"""Kinds of models, devices and dtypes."""

import os
from pathlib import Path
from typing import Literal, NamedTuple, get_args

Device = Literal["auto", "cpu", "cuda", "mps"]
"""The device of a model; "auto" is a GPU if there is one."""

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""The dtype of a model; "auto" is the checkpoint's, except float32 on a CPU."""

DEVICES: tuple[Device, ...] = get_args(Device)
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


class Kind(NamedTuple):
    """A runtime of models, with its package of the system."""

    name: str
    room: str
    needs: tuple[str, ...]  # extras
    why: str = ""  # why it takes no device, dtype and revision

    def extras(self, model: str | None) -> list[str]:
        """Return the extras for a model; None is SmolLM2, from `demo`."""
        return ["demo" if own == "hf" and not model else own for own in self.needs]


IN_ITS_OWN = "llama.cpp runs a file in its own types, on the device that it was built "
TRANSFORMERS = Kind("transformers", "hf", ("hf",))
VLLM = Kind("vLLM", "vllm", ("hf", "vllm"))
LLAMA_CPP = Kind("llama.cpp", "llama_cpp", ("llama-cpp",), f"{IN_ITS_OWN}for")
NUMPY = Kind("NumPy", "small", ("small",), "NumPy runs a small draft")

SMALL = str(Path(__file__).parents[1] / "small" / "smollm2.npz")
"""The package's small draft for SmolLM2-135M-Instruct."""


def kind_of(model: str | None) -> Kind:
    """Return the kind of a model, from the ending of its file."""
    ending = os.path.splitext(model or "")[1].lower()
    return {".gguf": LLAMA_CPP, ".npz": NUMPY}.get(ending, TRANSFORMERS)
