"""Where a model runs and what it computes in, by the names that users give."""

from typing import Literal, get_args

Device = Literal["auto", "cpu", "cuda", "mps"]
"""Where a model runs; "auto" is a GPU if there is one."""

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""What it computes in; "auto" is the checkpoint's own, but float32 on a CPU."""

DEVICES: tuple[Device, ...] = get_args(Device)
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
