"""The fingerprint of a vocabulary."""

import hashlib
import json
from collections.abc import Mapping


def vocabulary_fingerprint(
    vocabulary: Mapping[str, int], vocab_size: int | None = None
) -> bytes:
    """Return 8 bytes that are equal only if two vocabularies have the same ids.

    Parameters
    ----------
    vocabulary : mapping of str to int
        Token ids, as returned by a Hugging Face tokenizer's ``get_vocab``.
    vocab_size : int, optional
        The model's V. Tokens with larger ids, which have no logits, are left out.

    Examples
    --------
    >>> vocabulary_fingerprint({"<s>": 0, "the": 1}).hex()
    '9a8904a8e3cf7fba'
    """
    most = float("inf") if vocab_size is None else vocab_size
    known = sorted(token for token in vocabulary.items() if token[1] < most)
    data = json.dumps(known).encode()
    return hashlib.blake2b(data, digest_size=8).digest()
