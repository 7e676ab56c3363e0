"""Replicas that read texts: the file of one alone, whatever dies."""

import functools
import os
from pathlib import Path

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.system.hf import ModelReader, load_model
from sqs_codec.system.ray._reader import RayReader
from tests.cli.test_demo import WORDS, save_model
from tests.system.ray.processes import descendants, wait_until

# Ray's own imports warn.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

AT_ONCE = 64
BAD = WORDS.index("fox")


class Dying(ModelReader):
    """Dies over a text of the worst word: once, but each time if it's the only one."""

    def __init__(self, model: str, folder: Path) -> None:
        super().__init__(load_model(model, device="cpu"))
        self.at_once, self._folder = AT_ONCE, folder

    def read(self, tasks):
        """Read, or die."""
        for task in tasks:
            if {*task.tokens} == {BAD}:
                n = len([*self._folder.iterdir()])
                (self._folder / str(n)).touch()
                if n == 0 or len(task.tokens) == 1:
                    os._exit(1)
        super().read(tasks)


def texts():
    """Return sixty texts, by tokens, over which replicas die once."""
    rng = np.random.default_rng(0)
    found = [rng.integers(0, len(WORDS), n) for n in rng.integers(2, 30, 60)]
    found[20] = np.full(5, BAD)
    return [distill.Piece(text.tolist(), range(len(text))) for text in found]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), len(WORDS), WORDS)


@pytest.fixture(scope="module")
def reader(model, tmp_path_factory):
    """Two replicas, which end with it."""
    before = {*descendants(os.getpid())}
    folder = tmp_path_factory.mktemp("seen")
    it = RayReader(functools.partial(Dying, model, folder), 2)
    yield it
    it.close()
    wait_until(lambda: {*descendants(os.getpid())} == before)


def make(path, reader, pieces):
    distill.make(path, sqs.Codec(reader.vocab_size, 50), reader, pieces)
    return path.read_bytes()


def test_a_model_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="no model there"):
        RayReader(functools.partial(fail, "no model there"), 1)


def fail(reason):
    raise ValueError(reason)


@pytest.mark.smoke
def test_the_file_is_that_of_one_alone(reader, model, tmp_path):
    alone = ModelReader(load_model(model, device="cpu"))
    alone.at_once = AT_ONCE
    for name in ("name", "vocab_size", "tokenizer_fingerprint", "max_tokens", "bos"):
        assert getattr(reader, name) == getattr(alone, name)
    assert reader.tokenize("the fox") == alone.tokenize("the fox")
    assert reader.at_once == AT_ONCE
    whole = make(tmp_path / "alone", alone, texts())
    assert make(tmp_path / "two", reader, texts()) == whole

    def broken():
        yield from texts()[:40]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "parted", reader, broken())
    assert (tmp_path / "parted.parts").is_dir()
    assert make(tmp_path / "parted", reader, texts()) == whole


def test_what_cannot_be_read_is_said(reader, tmp_path):
    pieces = texts()[:9]
    bad = distill.Piece([1] * 257, [5])
    task = distill.Counting(
        7, *bad, distill.Header(sqs.Codec(len(WORDS), 50)), np.random.default_rng(0)
    )
    with pytest.raises(ValueError, match="text 7 has 257 tokens"):
        reader.read([task])
    deadly = [*pieces, distill.Piece([BAD], [0]), *pieces]
    with pytest.raises(RuntimeError, match=r"a replica died over texts \d+ to \d+: "):
        make(tmp_path / "made", reader, deadly)
    assert len(list((tmp_path / "made.parts").glob("*.parquet"))) == 1
