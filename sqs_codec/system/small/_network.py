"""The network of a small draft.

With tokens x_1 ... x_n, embeddings e and matrices W:

    h_n = GRU(e(x_n), h_{n-1})
    q_n = (1 - g_n) softmax(E W_o h_n + b) + g_n sum_{j < n} a_nj [x_{j+1}]

where the weights a_nj are the softmax of (W_q h_n)·(W_k h_j) over the last positions of
the text, and g_n = sigmoid(w·h_n + b_g). The first term covers the columns, the tokens
that the target generates most often. The second one, the pointer, repeats tokens that
followed a similar position. E embeds the columns; any other token maps to a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LEAST = 1e-9  # the probability of tokens that are neither columns nor pointed at


@dataclass(frozen=True)
class Network:
    """The weights, as float32."""

    inputs: NDArray[np.int64]
    """[V]: the column of each token as an input."""
    columns: NDArray[np.int64]
    """[C]: the token of each column."""
    embedding: Array
    """[C, e]."""
    bias: Array
    """[C]: b."""
    given: Array
    """[3h, e]: the reset gate, update gate and candidate, from an embedding."""
    given_bias: Array
    kept: Array
    """[3h, h]: the same, from a state."""
    kept_bias: Array
    out: Array
    """[e, h]: W_o."""
    out_bias: Array
    pointer: Array
    """[2d + 1, h]: W_q, W_k and w."""
    pointer_bias: Array

    @property
    def begin(self) -> Array:
        """The state before a text."""
        return np.zeros(self.kept.shape[1], np.float32)

    def step(self, token: int, state: Array) -> Array:
        """Return the state [h] after another token."""
        size = state.size
        given = self.given @ self.embedding[self.inputs[token]] + self.given_bias
        kept = self.kept @ state + self.kept_bias
        gates = _sigmoid(given[: 2 * size] + kept[: 2 * size])
        candidate = np.tanh(given[2 * size :] + gates[:size] * kept[2 * size :])
        new: Array = candidate + gates[size:] * (state - candidate)
        return new

    def point(self, state: Array) -> tuple[Array, Array, float]:
        """Return the query [d], key [d] and weight g of the pointer at a state."""
        found = self.pointer @ state + self.pointer_bias
        query, key = found[:-1].reshape(2, -1)
        return query / np.sqrt(np.float32(query.size)), key, float(_sigmoid(found[-1]))

    def logits(
        self, state: Array, keys: Array, ids: NDArray[np.int64], query: Array, g: float
    ) -> Array:
        """Return log q [V] at a state; `ids` [n] followed the states of keys [n, d]."""
        z = self.embedding @ (self.out @ state + self.out_bias) + self.bias
        row = np.zeros(self.inputs.size, np.float32)
        row[self.columns] = _softmax(z) * (1 - g * bool(ids.size))
        np.add.at(row, ids, _softmax(keys @ query) * g)
        # Most tokens are neither columns nor pointed at and have the same logarithm.
        has = np.concatenate([self.columns, ids])
        logs = np.log(row[has] + np.float32(LEAST))
        row.fill(np.log(LEAST))
        row[has] = logs
        return row


def _softmax(z: Array) -> Array:
    found: Array = np.exp(z - z.max(initial=-np.inf))
    found /= found.sum()
    return found


def _sigmoid(x: Any) -> Any:
    return 0.5 * np.tanh(0.5 * x) + 0.5
