"""Our plugin, which vLLM loads in each of its processes to register the verifiers."""

import os
import signal
import threading
import time

SERVER = "SQS_VLLM_SERVER"  # the environment variable with the server's process id

VERSIONS = ("0.32", "0.33")
"""Versions of vLLM whose model runners call a pooler as `_verifier` expects."""

ARCHITECTURES = {
    "Gemma3ForCausalLM": "gemma3",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""Supported architectures, and vLLM's modules with their models."""


def supported(version: str) -> bool:
    return ".".join(version.split(".")[:2]) in VERSIONS


def register() -> None:
    """Register the verifiers, in supported versions of vLLM only."""
    try:
        import vllm
    except ImportError:
        return
    if os.environ.get(SERVER) == str(os.getppid()):  # this is vLLM's engine core
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if supported(getattr(vllm, "__version__", "")):
        for name in ARCHITECTURES:
            vllm.ModelRegistry.register_model(
                f"Sqs{name}", f"sqs_codec.system.vllm._verifier:Sqs{name}"
            )


def _end_with(parent: int) -> None:
    """End this process after its parent; otherwise it would run forever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)
