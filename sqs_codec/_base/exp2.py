"""Constants of the exponential function, as in ``csrc/rows/softmax.h``."""

LOG2_E = 1.4426950408889634

TAYLOR = (
    1.3691488853904128e-12,
    2.5678435993488206e-11,
    4.4455382718708116e-10,
    7.054911620801123e-09,
    1.01780860092397e-07,
    1.321548679014431e-06,
    1.5252733804059841e-05,
    0.0001540353039338161,
    0.0013333558146428443,
    0.009618129107628477,
    0.05550410866482158,
    0.24022650695910072,
    0.6931471805599453,
    1.0,
)
"""Coefficients of 2**f on [-1/2, 1/2], highest first; float32 uses the last 8."""

UNITS = 2.0**42
"""The weight of a row's most probable token; the other weights are integers, too."""
