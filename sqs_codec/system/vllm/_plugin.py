"""What vLLM loads in each of its processes: the names of the verifiers."""

import os
import signal
import threading
import time

SERVER = "SQS_VLLM_SERVER"
"""Where the environment says which process serves, by its number."""

VERSIONS = ("0.32", "0.33")
"""Versions of vLLM whose model runners call a pooler as `_verifier` expects."""

ARCHITECTURES = {
    "Gemma3ForCausalLM": "gemma3",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""Models that verify rounds, and vLLM's modules of them."""


def supported(version: str) -> bool:
    """Tell whether a version of vLLM is one of `VERSIONS`."""
    return ".".join(version.split(".")[:2]) in VERSIONS


def register() -> None:
    """Tell vLLM the verifiers' names, as its plugin; other versions are left alone."""
    try:
        import vllm
    except ImportError:
        return
    if os.environ.get(SERVER) == str(os.getppid()):  # this is the core that it started
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if supported(getattr(vllm, "__version__", "")):
        for name in ARCHITECTURES:
            vllm.ModelRegistry.register_model(
                f"Sqs{name}", f"sqs_codec.system.vllm._verifier:Sqs{name}"
            )


def _end_with(parent: int) -> None:
    """End with the process that serves: vLLM would stay for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
