"""What tells a vocabulary apart."""

import hashlib
import json
from collections.abc import Mapping


def vocabulary_fingerprint(
    vocabulary: Mapping[str, int], vocab_size: int | None = None
) -> bytes:
    """Return 8 bytes that tell vocabularies apart: who has the same has the same ids.

    Parameters
    ----------
    vocabulary : mapping of str to int
        Ids of the tokens, as a tokenizer of Hugging Face spells them.
    vocab_size : int, optional
        V of the model, if its tokenizer may have tokens from that id on, for which it
        has no logits: they don't count.

    Examples
    --------
    >>> vocabulary_fingerprint({"<s>": 0, "the": 1}).hex()
    '9a8904a8e3cf7fba'
    """
    most = float("inf") if vocab_size is None else vocab_size
    known = sorted(token for token in vocabulary.items() if token[1] < most)
    data = json.dumps(known).encode()
    return hashlib.blake2b(data, digest_size=8).digest()
