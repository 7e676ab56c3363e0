"""The codec on PyTorch tensors (the extra ``[torch]``).

`quantize` and `quantize_unbiased` take a row of logits on any device; their ``_rows``
variants take many. `to_dense` makes dense rows for models and metrics. `verify` and
`gumbel_verify` take the target's logits; their ``_rounds`` variants take many rounds.
Only a few numbers per row and per kept token move between an accelerator and the host,
never a whole row. `distillation_loss` compares a student's logits with the stored
distributions of a `TeacherBatch` on their device.

The device must support float64. Apple's MPS doesn't, so its tensors are copied to the
CPU first.
"""

from sqs_codec._base.errors import needing

with needing("sqs_codec.torch", "torch"):
    import torch

from sqs_codec._codec.drafter import ROW_TYPES
from sqs_codec.torch._distill import TeacherBatch, distillation_loss
from sqs_codec.torch._gumbel import gumbel_verify, gumbel_verify_rounds
from sqs_codec.torch._quantize import (
    quantize,
    quantize_row,
    quantize_rows,
    to_dense,
)
from sqs_codec.torch._unbiased import quantize_unbiased, quantize_unbiased_rows
from sqs_codec.torch._verify import verify, verify_rounds

__all__ = [
    "TeacherBatch",
    "distillation_loss",
    "gumbel_verify",
    "gumbel_verify_rounds",
    "quantize",
    "quantize_rows",
    "quantize_unbiased",
    "quantize_unbiased_rows",
    "to_dense",
    "verify",
    "verify_rounds",
]

ROW_TYPES[torch.Tensor] = quantize_row
