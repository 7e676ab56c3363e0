"""A GGUF file as a reader: all rows of many texts, and what is measured by them."""

from pathlib import Path

import numpy as np
import pytest

from sqs_codec.distill._tasks import Answer, Task
from sqs_codec.system.hf._models import _smollm2_gguf
from sqs_codec.system.llama_cpp import Draft, ModelReader
from tests.refusals import refuses
from tests.system.llama_cpp.files import write_model

SIZE = 6
"""Of the vocabulary of `WORDS`."""

ALIKE = 0.1
"""How near logits are that llama.cpp computed in batches of other sizes."""


class Keeping(Task):
    """Keeps all rows that it gets."""

    def _look(self, logits, rows):
        return Answer(None, {"likeliest": logits.copy()})


def read(reader, tasks):
    for task, logits in reader.read(tasks):
        task.tell(logits)


def draw(*lengths):
    rng = np.random.default_rng(0)
    return [rng.integers(3, SIZE, n).tolist() for n in lengths]


def keeping(texts):
    """Return a task of the second half of each text."""
    halves = (range(len(text) // 2, len(text)) for text in texts)
    return [Keeping(0, *pair, SIZE) for pair in zip(texts, halves, strict=True)]


def require_drafts_rows(path, tasks):
    draft = Draft(path, n_ctx=2048)
    for task in tasks:
        rows = task.answer.told["likeliest"]
        assert rows.shape == (len(task.places), SIZE)
        for row, place in zip(rows, task.places, strict=True):
            expected = draft.logits(task.tokens[: place + 1])[0]
            np.testing.assert_allclose(row, expected, atol=ALIKE)


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
def test_short_texts_share_a_forward_pass(tmp_path, architecture, fed):
    path = write_model(tmp_path / "model.gguf", architecture)
    tasks = keeping(draw(5, 1, 20, 9))
    read(ModelReader(path), tasks)
    together, apart = [(35, 19)], [(5, 3), (1, 1), (20, 10), (9, 5)]
    assert fed == (together if architecture == "llama" else apart)
    require_drafts_rows(path, tasks)


def test_texts_are_batched_up_to_the_room(tmp_path, fed):
    path = write_model(tmp_path / "model.gguf", "llama", context=600)
    tasks = keeping(draw(500, 12, 1, 511, *[2] * 66, 513))
    read(ModelReader(path), tasks)
    assert [size for size, _ in fed] == [512, 512, 64 * 2, 2 * 2, 512, 1]
    require_drafts_rows(path, [*tasks[1:3], *tasks[-3:-1]])


def test_long_texts_are_computed_in_parts(tmp_path, fed):
    path = write_model(tmp_path / "model.gguf", "llama", context=2048)
    text, short = draw(1100, 9)
    long = Keeping(0, text, [5, 6, 510, 511, 512, 1030], SIZE)
    tasks = [long, *keeping([short]), Keeping(2, text, [600], SIZE)]
    read(ModelReader(path), tasks)
    assert fed == [(512, 4), (512, 1), (76, 1), (9, 5), (512, 0), (512, 1)]
    require_drafts_rows(path, tasks)


def test_a_reader_describes_itself():
    path = _smollm2_gguf()
    reader, draft = ModelReader(path, threads=1), Draft(path)
    assert reader.name.startswith(Path(path).name + " (llama ")
    assert reader.name.endswith("Q4_1)")
    assert (reader.tokenizer.vocab_size, reader.max_tokens) == (49_152, 8192)
    tokenizer = reader.tokenizer
    assert tokenizer.fingerprint == draft.tokenizer.fingerprint
    assert tokenizer.bos is None
    for text, size in (("", 0), ("the fox", 2)):
        assert len(tokenizer.encode(text)) == size
        assert tokenizer.encode(text) == draft.tokenizer.encode(text)
    # Packed texts have the end-of-text token between; llama-perplexity spells none.
    for text, token in (("<|im_end|>", 2), ("<|endoftext|>", 0)):
        ids = tokenizer.encode(f"One.{text}Two.")
        assert ids == draft.tokenizer.encode(f"One.{text}Two.")
        assert token in ids
        assert token not in tokenizer.encode(f"One.{text}Two.", special=False)


def test_unreadable_texts_are_refused(tmp_path):
    path = write_model(tmp_path / "model.gguf", "llama")
    reader = ModelReader(path)
    assert (reader.tokenizer.bos, reader.max_tokens) == (1, 64)
    [short] = keeping(draw(3))
    with pytest.raises(RuntimeError, match=r"can't decode \(-1\): invalid token"):
        read(reader, keeping([[3, 4, 99]]))
    read(reader, [short])
    require_drafts_rows(path, [short])
    refuses(r"threads must be in \[1, 512\]", ModelReader, path, threads=0)
