"""Models inside vLLM (the extra ``[vllm]``): `VllmEngine`, `ModelReader`.

The first verifies rounds, the second reads texts for `sqs_codec.distill`. Unlike the
rest of the package this needs vLLM, and imports it only when one of them is opened. How
it works is in ``docs/serving/vllm.md``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqs_codec.system.vllm._engine import VllmEngine
    from sqs_codec.system.vllm._reader import ModelReader

__all__ = ["ModelReader", "VllmEngine"]


if not TYPE_CHECKING:  # where it would make every misspelt name an Any

    def __getattr__(name):
        """Import what is asked for: vLLM loads this package in every process."""
        if name == "ModelReader":
            from sqs_codec.system.vllm._reader import ModelReader

            return ModelReader
        if name != "VllmEngine":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from sqs_codec.system.vllm._engine import VllmEngine

        return VllmEngine
