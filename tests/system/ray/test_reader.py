"""Replicas that compute logits: the file of a single one, whichever process dies."""

import functools
import os

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.distill._tasks import Counting
from sqs_codec.system.hf import ModelReader, load_model
from sqs_codec.system.ray._reader import RayReader
from tests.cli.test_demo import WORDS, save_model
from tests.system.ray.processes import nothing_left

# Ray's own imports warn.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BAD = WORDS.index("fox")
CODEC = sqs.Codec(len(WORDS), 50)


class Dying(ModelReader):
    """Dies over a text of the worst word: once, but each time if it's the only one."""

    def __init__(self, model, seen=None):
        super().__init__(load_model(model, device="cpu"))
        self.at_once, self._seen = 64, seen

    def read(self, tasks):
        tasks = [*tasks]
        for task in tasks:
            if self._seen and {*task.tokens} == {BAD}:
                known = self._seen.exists()
                self._seen.touch()
                if not known or len(task.tokens) == 1:
                    os._exit(1)
        return super().read(tasks)


def fail():
    raise ValueError("no model there")


def test_a_missing_model_is_reported():
    with pytest.raises(ValueError, match="no model there"):
        RayReader(fail, 1)


@pytest.mark.smoke
@nothing_left()
def test_many_replicas_write_the_file_of_one(tmp_path):
    path = save_model(tmp_path, len(WORDS), WORDS)
    rng, alone = np.random.default_rng(0), Dying(path)
    texts = [rng.integers(0, len(WORDS), n).tolist() for n in rng.integers(2, 30, 60)]
    texts[20] = [BAD] * 5
    pieces = [(text, range(len(text))) for text in texts]
    distill.make(tmp_path / "alone", CODEC, alone, pieces)
    make = functools.partial(Dying, path, tmp_path / "seen")
    with RayReader(make, 2) as reader:
        for name in "name", "max_tokens", "at_once":
            assert getattr(reader, name) == getattr(alone, name)
        one, other = reader.tokenizer, alone.tokenizer
        assert (one.vocab_size, one.bos) == (other.vocab_size, other.bos)
        assert one.fingerprint == other.fingerprint
        assert one.encode("the fox") == other.encode("the fox")
        distill.make(tmp_path / "two", CODEC, reader, pieces)
        assert (tmp_path / "two").read_bytes() == (tmp_path / "alone").read_bytes()
        bad = Counting(7, [len(WORDS)], [0], distill.Header(CODEC), rng)
        with pytest.raises(IndexError):
            [*reader.read([bad])]
        deadly = [*pieces[:20], ([BAD], [0])]
        with pytest.raises(RuntimeError, match=r"a replica died at texts \d+ to 20: "):
            distill.make(tmp_path / "deadly", CODEC, reader, deadly)
