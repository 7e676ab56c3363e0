"""What tells a vocabulary apart."""

import hashlib
import json
from collections.abc import Mapping


def vocabulary_fingerprint(vocabulary: Mapping[str, int]) -> bytes:
    """Return 8 bytes that tell vocabularies apart: who has the same has the same ids.

    Parameters
    ----------
    vocabulary : mapping of str to int
        Ids of the tokens, as a tokenizer of Hugging Face spells them.

    Examples
    --------
    >>> vocabulary_fingerprint({"<s>": 0, "the": 1}).hex()
    '9a8904a8e3cf7fba'
    """
    data = json.dumps(sorted(vocabulary.items())).encode()
    return hashlib.blake2b(data, digest_size=8).digest()
