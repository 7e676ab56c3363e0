"""``sqs distill import``: files of other programs, and their errors."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.cli import main as cli
from sqs_codec.distill._imports.names import Names
from sqs_codec.distill._imports.responses import read_responses

RECORDED = Path(__file__).parent / "recorded/vllm-0.32.jsonl"
"""Responses of vLLM 0.32.0 with SmolLM2: to completions, by ids and with the prompt's
logprobs; with an echo instead, by text; to chat completions, by text; and two of the
Python API, one with ``flat_logprobs``. At a temperature of 1.5, so that the token is
often none of the likeliest two or three."""

SKY = [504, 6376, 314, 4461]
WORDS = {
    "The": 504, "Ġsky": 6376, "Ġis": 314, "Ġblue": 4461, ",": 28, "-": 29, "Ċ": 198,
    "Ġwas": 436, "Ġa": 253, "Ġthe": 260, "Ġnot": 441, ".": 30, "Ġand": 284,
    "Ġbut": 564, "Ġunlike": 9653, "He": 3681, "Hello": 19556, "Hi": 26843, ":": 42,
    "asty": 7348, "ather": 1063, "ard": 477, "ĠBob": 8363, "!": 17, "ðŁ": 5, "é": 6,
    "ï¿½": 7,
}  # fmt: skip
"""Of SmolLM2's vocabulary and some more."""


def byte_level():
    tokenizer = Tokenizer(models.BPE(WORDS, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|end|>")])
    return tokenizer


def read(path, names=None):
    found = read_responses(path, names or Names())
    return [text for _, texts in found for text in texts]


def responses(folder, *records, names=None):
    path = folder / "lists.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return read(path, names)


def as_dicts(text):
    pairs = zip(text.token_ids, text.logprobs, strict=True)
    return [dict(zip(ids, logs, strict=True)) for ids, logs in pairs]


def run(*arguments):
    return cli.main(["distill", *map(str, arguments)])


def test_recorded_responses():
    ids, echo, chat, python, flat = read(RECORDED, Names(byte_level()))
    tokens = [*SKY, 28, 304, 2756, 493, 7348, 425]
    assert [t.tokens for t in (ids, python, flat)] == [tokens] * 3
    assert echo.tokens == [*SKY, 28, 9653]
    assert [t.first for t in (ids, echo, python, flat)] == [1] * 4
    # The same prompt has the same lists, in whichever form.
    assert as_dicts(echo)[:3] == as_dicts(ids)[:3]
    assert as_dicts(python)[:6] == as_dicts(flat)[:6]
    assert as_dicts(flat)[0].items() <= as_dicts(ids)[0].items()
    assert len(flat.token_ids) == 9
    assert as_dicts(flat)[-1].keys() == {425, 28, 30, 304}
    # An answer to an unknown prompt begins with nothing.
    assert (chat.tokens, chat.first) == ([3681, 7348, 8363, 30], 1)
    assert as_dicts(chat)[1] == {8363: -10.015386581420898, 28: -1.2627254724502563,
                                 17: -1.2816139459609985}  # fmt: skip
    assert [len(t.notes) for t in (ids, echo, chat, python, flat)] == [0, 0, 1, 0, 0]


def entry(token, logprob, data=None):
    return {"token": token, "logprob": logprob, "bytes": data}


def test_openai_chat(tmp_path):
    """Bytes tell what a token is; the one that was drawn may be none of the top.

    Two tokens may have the same bytes, as a character and its byte do.
    """
    top = [entry(" sky", -0.5, [*b" sky"]), entry("\\xf0\\x9f", -1.5, [0xF0, 0x9F])]
    top.append(top[0] | {"logprob": -9.5})
    first = {**entry("<|end|>", -9.0), "top_logprobs": top}
    content = [first, {**entry(" sky", -0.5), "top_logprobs": top[:1]}]
    body = {
        "choices": [{"logprobs": {"content": content}}, {"logprobs": {"content": []}}]
    }
    end = byte_level().token_to_id("<|end|>")
    batch = {"response": {"body": body}, "prompt_token_ids": [504, 28]}
    text, empty = responses(tmp_path, batch, names=Names(byte_level()))
    assert (text.tokens, text.first, text.notes) == ([504, 28, end, 6376], 2, {})
    assert as_dicts(text) == [{end: -9.0, 6376: -0.5, 5: -1.5}, {6376: -0.5}]
    assert empty.token_ids == []


def test_several_lines_and_arrays(tmp_path):
    records = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    path = tmp_path / "lists.json"
    for whole in (records[3:], records[4]):
        path.write_text("\n" + json.dumps(whole, indent=1))
        assert read(path)[-1] == read(RECORDED, Names(byte_level()))[-1]


def test_names_of_pieces():
    """As SentencePiece has them: of a character and its byte a text has the former."""
    ids = {"▁the": 3, "the": 4, "<0x0A>": 5, "<0xC3>": 6, "A": 7, "<0x41>": 8}
    tokenizer = Tokenizer(models.BPE(ids, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    names = Names(tokenizer)
    found = [names.find(name) for name in (" the", "the", "\n", "A", "token_id:9")]
    assert found == [3, 4, 5, 7, 9]
    assert names.find("\\xc3", [0xC3]) == 6
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    with pytest.raises(ValueError, match=r"its decoder is .* and Strip"):
        Names(tokenizer).find("the")


@pytest.mark.parametrize("name", ["\N{REPLACEMENT CHARACTER}", "", "skyblue"])
def test_names_with_too_little_information(name):
    with pytest.raises(ValueError, match=r"not one token .*return_tokens_as_token_i"):
        Names(byte_level()).find(name)


def python_output(**change):
    """The Python API's result, with changes to its one output."""
    output = {"token_ids": [5], "logprobs": [{"5": {"logprob": -1.0}}]} | change
    return {"prompt_token_ids": [1, 2], "outputs": [output]}


def formed(**logprobs):
    """Its result with lists of another form."""
    return python_output(logprobs=logprobs)


def top(name):
    """Its result for one token with this name."""
    return formed(tokens=[name], top_logprobs=[{name: -1.0}])


def listed(*lists):
    """Its result with these log-probabilities of ids."""
    given = [one and {k: {"logprob": v} for k, v in one.items()} for one in lists]
    return python_output(token_ids=[*range(5, 5 + len(lists))], logprobs=given)


ID = "token_id:5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: Expecting property name"),
        (json.dumps(python_output()) + "\n{", "line 2: Expecting property name"),
        ("[" * 100_000, "line 1: the JSON is nested too deep"),
        ("\xff", "line 1: 'utf-8' codec can't decode"),
        ("3", "record 1: it must be a dict, got int"),
        ("{}", "record 1: it is not a response"),
        ('{"error": {"code": 400}}', "record 1: it is .*: it has no choices"),
        ('{"choices": [3]}', "record 1: choice 0: it must be a dict"),
        ('{"choices": [{"logprobs": null}]}', "it has no logprobs and no prompt_logpr"),
        (python_output(token_ids=None), "it has 0 token_ids but 1 logprobs"),
        (python_output(token_ids=[True]), r"token_ids\[0\] must be an integer from"),
        (listed({"5": -1.0}, None), "token 3 has no list"),
        (listed({"-5": -1.0}), r"choice 0: logprobs\[0\]: '-5' is not a token id"),
        (listed({"5": "-1"}), "a logprob must be a number, got '-1'"),
        (listed({"5": 1e400}), "log-prob.* got inf"),
        (listed({"5": 0.5}), "row 0: the log-prob"),
        (listed({"5": 0, "6": -0.5}), "row 0: the probabilities sum to 1.6"),
        (listed({"90": -1.0}), "row 0: token 90 must be"),
        (formed(start_indices=[0], logprobs=[-1]), "0 token_ids but 1 logprobs"),
        (formed(tokens=[ID], top_logprobs=None), "top_.* must be a list, got None"),
        (formed(content=[entry(ID, -1)]), r"content\[0\]: it has no top_logprobs: req"),
        (top("token_id:6"), "its token_ids are not the tokens of its logprobs"),
        (top(" a"), r"top_logprobs\[0\]: the token ' a' has no id: pass the token"),
    ],
)
def test_wrong_json_is_refused(tmp_path, capsys, text, message):
    """The error names the place, and no partial file is left."""
    path, output = tmp_path / "lists.jsonl", tmp_path / "out.parquet"
    path.write_bytes(
        (text if isinstance(text, str) else json.dumps(text)).encode("latin-1")
    )
    assert run("import", path, "--vocab-size", 50, "-o", output) == 1
    err = capsys.readouterr().err
    assert f"{path}: " in err
    assert re.search(message, err), err
    assert len(err) < 2000
    assert not output.exists()


def test_the_command(tmp_path, capsys):
    """Several files become one, with a description in its header."""
    tokenizer, output = byte_level(), tmp_path / "out.parquet"
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(python_output()))
    options = ["--tokenizer", tmp_path, "--model", "SmolLM2"]
    assert run("import", RECORDED, other, *options, "-o", output) == 0
    out, err = capsys.readouterr()
    assert "have no prompt_token_ids: the student will see them without" in err
    for said in ("rounding: lattice", "tail: True", "6 sequences of 43 tokens"):
        assert said in out
    dataset = distill.load(output, tokenizer=tokenizer)
    size = max(tokenizer.get_vocab().values()) + 1
    codec, model = dataset.header.codec, dataset.header.model
    assert (codec.vocab_size, model) == (size + 1, "SmolLM2")
    texts = [*read(RECORDED, Names(tokenizer)), *read(other)]
    for text, kept in zip(texts, dataset, strict=True):
        rows = codec.quantize_top_logprobs_rows(text.token_ids, text.logprobs)
        assert kept.rows == rows
        assert kept.tokens.tolist() == [*text.tokens]
        assert kept.places[0] == text.first - 1


def test_the_prior_of_a_tokenizer(tmp_path):
    """It gets a tail, and a file with a built-in one is read without a word on it."""
    path, own = tmp_path / "lists.json", tmp_path / "own.sqsprior"
    path.write_text(json.dumps(python_output()))
    prior = sqs.Prior.builtin("smollm2")
    sqs.Prior.from_counts(np.arange(50)).save(own)
    for name, size in (("smollm2", prior.vocab_size), (str(own), 50)):
        output = tmp_path / f"{size}.parquet"
        options = ["--vocab-size", size, "--prior", name]
        assert run("import", path, *options, "-o", output) == 0
        assert run("check", output, "--prior", name) == 0
    header = distill.load(tmp_path / "49152.parquet").header
    assert header.codec.prior == prior.with_tail()
    with pytest.raises(SystemExit, match="2"):  # as the number of ids is unknown
        run("import", path, "-o", tmp_path / "new.parquet")
