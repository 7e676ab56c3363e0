"""``sqs distill import``: what others' files say, and what is wrong with them."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

import sqs_codec as sqs
from sqs_codec import distill
from sqs_codec.cli import main as cli
from sqs_codec.distill._imports import Compression, Names, distillkit, read_lists

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


def read(path, names=None, how=None):
    found = read_lists(path, names or Names(), how)
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
def test_names_that_say_too_little(name):
    with pytest.raises(ValueError, match=r"not one token .*return_tokens_as_token_i"):
        Names(byte_level()).find(name)


def python_output(**change):
    """What the Python API gives, with something else in its one output."""
    output = {"token_ids": [5], "logprobs": [{"5": {"logprob": -1.0}}]} | change
    return {"prompt_token_ids": [1, 2], "outputs": [output]}


def listed(logprobs):
    """What it gives with these log-probabilities of ids."""
    return python_output(logprobs=[{k: {"logprob": v} for k, v in logprobs.items()}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: Expecting property name"),
        (json.dumps(python_output()) + "\n{", "line 2: Expecting property name"),
        ("[" * 100_000, "line 1: it is nested too deep"),
        ("\xff", "line 1: 'utf-8' codec can't decode"),
        ("3", "record 1: it must be a dict, got int"),
        ("{}", "record 1: it has no choices and no outputs"),
        ('{"error": {"code": 400}}', "record 1: it has no choices"),
        ('{"choices": [3]}', "record 1: choice 0: it must be a dict"),
        ('{"choices": [{"logprobs": null}]}', "it has no logprobs and no prompt_logpr"),
        (python_output(token_ids=None), "it has 0 token_ids and 1 logprobs"),
        (python_output(token_ids=[True]), r"token_ids\[0\] must be an integer of 0 to"),
        (
            python_output(token_ids=[5, 6], logprobs=[{"5": {"logprob": -1.0}}, None]),
            "token 3 has no list",
        ),
        (listed({"-5": -1.0}), r"choice 0: logprobs\[0\]: '-5' is no id"),
        (listed({"5": "-1"}), "a logprob must be a number, got '-1'"),
        (listed({"5": 1e400}), "log-prob.* got inf"),
        (listed({"5": 0.5}), "row 0: the log-prob"),
        (listed({"5": 0, "6": -0.5}), "row 0: the probabilities sum to 1.6"),
        (listed({"90": -1.0}), "row 0: token 90 must be"),
        (
            python_output(logprobs={"start_indices": [0], "logprobs": [-1.0]}),
            "it has 0 token_ids and 1 logprobs",
        ),
        (
            python_output(logprobs={"tokens": ["token_id:5"], "top_logprobs": None}),
            "top_logprobs must be a list, got NoneType",
        ),
        (
            python_output(logprobs={"content": [entry("token_id:5", -1.0)]}),
            r"content\[0\]: it has no top_logprobs: ask for some",
        ),
        (
            python_output(
                token_ids=[6],
                logprobs={
                    "tokens": ["token_id:5"],
                    "top_logprobs": [{"token_id:5": 0}],
                },
            ),
            "its token_ids are not the tokens of its logprobs",
        ),
        (
            python_output(logprobs={"tokens": [" a"], "top_logprobs": [{" a": -1.0}]}),
            r"top_logprobs\[0\]: the token ' a' has no id: give its tokenizer",
        ),
    ],
)
def test_json_that_is_wrong(tmp_path, capsys, text, message):
    """It is an error that says where, and never half a file."""
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


BIN = {"scale_dtype": "float16", "element_bits": 3, "num_elements": 4}
CONFIG = {
    "d": 50, "k": 8, "exact_k": 2, "exact_dtype": "bfloat16", "term_dtype": "float32",
    "polynomial_terms": [0, 1, "sqrt"], "residual_bins": [], "delta_encoding": False,
}  # fmt: skip
FULL = CONFIG | {
    "exact_dtype": "float32", "term_dtype": "float16", "error_diffusion": False,
    "residual_bins": [BIN, BIN | {"element_bits": 1, "num_elements": 2}],
}  # fmt: skip
DELTAS = CONFIG | {
    "exact_k": 1, "exact_dtype": "float32", "term_dtype": "float64",
    "polynomial_terms": [0, 1, 2, "exp"], "normalize_t": True, "delta_encoding": True,
    "residual_bins": [{**BIN, "element_bits": 5, "num_elements": 7}],
}  # fmt: skip
IDS = [35, 18, 42, 41, 15, 22, 13, 36]
PACKED_IDS = "8d2aa93d6364"
KEPT = [
    (
        CONFIG,
        "06bfd2bf42781ec0caa54c3e9947b0bf",
        [-0.5234, -1.6406, -2.4761, -3.6534, -4.024, -4.2619, -4.4311, -4.5563],
    ),
    (
        FULL,
        "e12d06bf88edd1bff4c0653282bd12287c303f2a80",
        [-0.5241, -1.6401, -2.5084, -3.5589, -4.1506, -4.2935, -4.3809, -4.6074],
    ),
    (
        DELTAS,
        "e12d06bf00000060ab312d40000000e06a7d2d4000000080470b2a400000008014492fc0a1225f"
        "c8cc3de0",
        [-0.5241, -1.6346, -2.5039, -3.5315, -4.1488, -4.2986, -4.3776, -4.5479],
    ),
]
"""What DistillKit's code makes of the log-probabilities -0.524, -1.64, -2.496, -3.527,
-4.149, -4.302, -4.381 and -4.548, and what it reads of it."""


def compressed(logprobs, ids=PACKED_IDS):
    """Return columns of a text of three tokens, two of them with the same list."""
    kind = pa.list_(pa.list_(pa.uint8()))
    return {
        "input_ids": pa.array([[1, 35, 18]], pa.list_(pa.uint64())),
        "compressed_logprobs": pa.array([[list(bytes.fromhex(logprobs))] * 2], kind),
        "bytepacked_indices": pa.array([[list(bytes.fromhex(ids))] * 2], kind),
    }


def as_it_is(tokens, ids, logprobs):
    return {"input_ids": tokens, "token_ids": ids, "top_values": logprobs}


def parquet(folder, columns):
    path = folder / "data_0.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def configured(folder, config):
    path = folder / "compression_config.yaml"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


@pytest.mark.parametrize(("config", "data", "logprobs"), KEPT)
def test_distillkit(tmp_path, config, data, logprobs):
    """The list of a row is of the token after it."""
    how = Compression.read(configured(tmp_path, config))
    [text] = read(parquet(tmp_path, compressed(data)), None, how)
    assert (text.tokens.tolist(), text.first) == ([1, 35, 18], 1)
    assert text.token_ids.tolist() == [IDS, IDS]
    np.testing.assert_allclose(text.logprobs, [logprobs] * 2, atol=3e-3)


def test_distillkit_as_it_is(tmp_path):
    """Lists that sum to more than 1 are scaled."""
    ids = [[[3, 2], [2, 3]], [[1, 2]]]
    logprobs = [[[-1.0, -2.0], [0.5, -0.5]], [[-1.0, -2.0]]]
    columns = as_it_is([[1, 3, 2], [3]], ids, logprobs)
    first, second = read(parquet(tmp_path, columns))
    assert first.logprobs[0].tolist() == [-1, -2]
    np.testing.assert_allclose(first.logprobs[1], [-0.313262, -1.313262], atol=1e-6)
    assert [*first.notes.values(), *second.notes.values()] == [1, 0]


KEPT_LIST = KEPT[0][1]
WRONG_CONFIGS = [
    (None, "it is compressed: give DistillKit's config"),
    ({}, r"it lacks \['d', 'exact_k', 'k'\] and has unknown"),
    (CONFIG | {"vocab_size": 5}, r"unknown \['vocab_size'\]"),
    (CONFIG | {"k": 51}, r"k must be in \[1, 50\], got 51"),
    (CONFIG | {"term_dtype": "int8"}, "must be one of .*'int8'"),
    (CONFIG | {"polynomial_terms": ["log"]}, "integer, got 'log'"),
    (CONFIG | {"polynomial_terms": [10**400]}, r"\[0, 64\]"),
    ("[" * 50_000, "it is no YAML"),
    ("{d: &a [1], k: [*a, *a]}", "has aliases: write out"),
    (" " * (1 << 16) + "{}", "it is too long, or"),
    (CONFIG | {"d": "x" * 60_000}, r"integer, got 'x*\.\.\."),
    (CONFIG | {"residual_bins": [BIN, BIN]}, r"\[0, 6\], got 8"),
    (CONFIG | {"residual_bins": [{}]}, "missing 3 required"),
    (CONFIG | {"k": 9}, "lists are shorter than"),
]
WRONG_LISTS = [
    (
        as_it_is([[1]], [[[1]]], [[[-1.0], [-1.0]]]),
        r"it has ids \(1, 1\) and log-probabilities \(2, 1\)",
    ),
    (
        as_it_is([[1, 2]], [[[1], [2, 3]]], [[[-1.0]]]),
        r"its lists must be of one length, got \[1, 2\]",
    ),
    (as_it_is([[1, 2]], [[[1]]], [[[None]]]), "row 0: it lacks a number"),
    (as_it_is([[1, 2]], [None], [[[-1.0]]]), "row 0: it lacks a list"),
    (
        as_it_is([[1]], [[[1], [2]]], [[[-1.0]] * 2]),
        "1 tokens and 2 distributions, one at least",
    ),
    (
        as_it_is([[1]], [[[1]]], [["-1"]]),
        "top_values must be list<.*double>>, got list<.*string>",
    ),
]
WRONG = [
    *((compressed(KEPT_LIST), *one) for one in WRONG_CONFIGS),
    (compressed(KEPT_LIST + "00"), CONFIG, "compressed_logprobs are longer than"),
    (compressed("ffff" + KEPT_LIST[4:]), CONFIG, "row 0: row 0: .* got nan"),
    (compressed(KEPT_LIST, "8d2aa93d6363"), CONFIG, "row 0 lists token 35 twice"),
    (compressed(KEPT_LIST, "8d2aa93d637f"), CONFIG, r"token 63 must be in \[0, 50\)"),
    ({"input_ids": [[1]], "packed_indices": [[[1]]]}, CONFIG, "expected columns input"),
    *((lists, None, message) for lists, message in WRONG_LISTS),
]


@pytest.mark.parametrize(("columns", "config", "message"), WRONG)
def test_parquet_that_is_wrong(tmp_path, capsys, columns, config, message):
    path, output = parquet(tmp_path, columns), tmp_path / "out.parquet"
    options = [] if config is None else ["--config", configured(tmp_path, config)]
    assert run("import", path, *options, "--vocab-size", 50, "-o", output) == 1
    err = capsys.readouterr().err
    assert str(tmp_path) in err
    assert re.search(message, err), err
    assert not output.exists()


def test_parquet_of_few_bytes_and_many_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(distillkit, "MOST_VALUES", 1000)
    lists = [[[1]]] * 16, [[[-1.0]]] * 16
    path = parquet(tmp_path, as_it_is([[0] * 5000] * 16, *lists))
    assert path.stat().st_size < 5000
    assert run("import", path, "--vocab-size", 50, "-o", tmp_path / "out.parquet") == 1
    assert "input_ids has 80000 values in" in capsys.readouterr().err


def test_cut_parquet(tmp_path, capsys):
    path = tmp_path / "cut.parquet"
    whole = parquet(tmp_path, compressed(KEPT_LIST)).read_bytes()
    path.write_bytes(whole[:-100])
    assert run("import", path, "--vocab-size", 50, "-o", tmp_path / "out.parquet") == 1
    assert "cut.parquet: cut, damaged or no Parquet file" in capsys.readouterr().err


def test_the_command(tmp_path, capsys):
    """Files of all kinds become one, which says what it is."""
    tokenizer, output = byte_level(), tmp_path / "out.parquet"
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    kit, config = parquet(tmp_path, compressed(KEPT_LIST)), configured(tmp_path, CONFIG)
    options = ["--config", config, "--tokenizer", tmp_path, "--model", "SmolLM2"]
    assert run("import", RECORDED, kit, *options, "-o", output) == 0
    out, err = capsys.readouterr()
    assert "have no prompt_token_ids: a student is to go on from nothing, where" in err
    for said in ("rounding: lattice", "tail: True", "6 sequences of 43 tokens"):
        assert said in out
    dataset = distill.open(output, tokenizer=tokenizer)
    size = max(tokenizer.get_vocab().values()) + 1
    codec, model = dataset.header.codec, dataset.header.model
    assert (codec.vocab_size, model) == (size + 1, "SmolLM2")
    texts = [
        *read(RECORDED, Names(tokenizer)),
        *read(kit, None, Compression.read(config)),
    ]
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
    header = distill.open(tmp_path / "49152.parquet").header
    assert header.codec.prior == prior.with_tail()
    with pytest.raises(SystemExit, match="2"):  # as nothing says how many ids there are
        run("import", path, "-o", tmp_path / "new.parquet")
