"""Priors: their files, the codecs that have one, and what a wrong one costs."""

import copy
import pickle

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec._base.prior_file import CODE_WEIGHTS
from sqs_codec._codec import prior as module
from sqs_codec._codec.prior import _builtin_files, agreed_prior
from tests import kit
from tests.reference import BrokenRuleError
from tests.reference import prior as reference
from tests.refusals import refuses

SHAPES = [(2, 1), (3, 2), (8, 32), (17, 5), (1000, 1), (1000, 5), (49152, 2)]
MUTATIONS = 10_000 * kit.TIMES


# Files


@pytest.mark.parametrize("style", range(3))
@pytest.mark.parametrize(("vocab_size", "classes"), SHAPES)
def test_files_round_trip(tmp_path, vocab_size, classes, style):
    prior = kit.make_prior(vocab_size, classes, style)
    assert (prior.vocab_size, prior.classes) == (vocab_size, classes)
    path = tmp_path / "a.sqsprior"
    prior.save(path)
    data = path.read_bytes()
    assert prior.to_bytes() == data
    assert len(data) == 18 + classes * (classes + 257) + vocab_size
    for same in (
        sqs.Prior.load(path),
        sqs.Prior.load(str(path)),
        sqs.Prior.from_bytes(data),
        sqs.Prior.from_bytes(bytearray(data)),
        sqs.Prior.from_bytes(memoryview(data)),
        pickle.loads(pickle.dumps(prior)),
        copy.copy(prior),
        copy.deepcopy(prior),
    ):
        assert same == prior
        assert hash(same) == hash(prior)
        assert same.digest == prior.digest
        assert same.to_bytes() == data


def test_weights_of_codes():
    weights = CODE_WEIGHTS.tolist()
    assert weights == [reference.weight_of_code(code) for code in range(256)]
    assert weights[:20] == [1] * 8 + [2] * 4 + [3] * 4 + [4, 4, 5, 5]
    assert weights[-1] == 15 << 28


@pytest.mark.parametrize(("vocab_size", "classes"), SHAPES)
def test_a_tail_has_the_weight_of_the_heaviest_id(vocab_size, classes):
    for style in range(3):
        prior = kit.make_prior(vocab_size, classes, style)
        tailed = prior.with_tail()
        old, new = (reference.parse(p.to_bytes()) for p in (prior, tailed))
        assert new.chances == old.chances
        full = len(set(old.kinds)) == 256
        for c in range(classes):
            *weighs, tail = [new.weights[c][kind] for kind in new.kinds]
            halves = [max(1, old.weights[c][kind] // 2) for kind in old.kinds]
            assert tail == max(weighs)
            assert weighs == halves or full
        codec = sqs.Codec(vocab_size + 1, prior=tailed)
        again = sqs.Codec.from_config(codec.config(), prior=prior.with_tail())
        q = sqs.SparseDistribution([0, vocab_size], [30, 70], vocab_size + 1)
        assert again.decode(codec.encode(q)) == q


def test_a_tail_fits_256_kinds_and_a_full_class():
    kinds = np.arange(256)
    codes = np.full((2, 256), 40, np.uint8)
    codes[0, 7], codes[1, 9] = 247, 247  # nearly the largest weight of a class
    codes[:, 200], codes[:, 100] = 32, [33, 31]  # the lightest, and one like it
    tables = kit.as_prior(np.ones((3, 2)), codes, kinds).with_tail()._tables
    assert tables.kinds.tolist() == [*kinds[:200], 100, *kinds[201:], 200]
    for c in range(2):
        weighs = tables.weigh(c)
        assert weighs[-1] == weighs.max() == 15 << 26
        assert tables.weights[c, 100] == 32 - 8 - c


def test_priors_are_values():
    prior, other = kit.make_prior(17, 5), kit.make_prior(17, 5, 1)
    assert prior != other
    assert prior != prior.to_bytes()
    assert len({prior, other, sqs.Prior.from_bytes(prior.to_bytes())}) == 2
    assert repr(prior) == f"<Prior {prior.digest.hex()}: vocab_size=17, classes=5>"
    assert len(prior.digest) == 8
    for name in ("vocab_size", "classes", "digest", "_data", "other"):
        refuses("can't change", setattr, prior, name, 1, error=AttributeError)
        refuses("can't change", delattr, prior, name, error=AttributeError)
    for array in prior._tables:
        while isinstance(array, np.ndarray):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
            array = array.base


def small():
    """Return a file of 3 ids and 2 classes with allowed weights."""
    weights = np.zeros((2, 256), np.uint8)
    weights[:, 0] = 8 * 30  # 2^30
    weights[:, 1] = 8 * 29
    kinds = np.array([0, 1, 1], np.uint8)
    return kit.as_prior(np.ones((3, 2)), weights, kinds).to_bytes()


def changed(at, *values):
    data = bytearray(small())
    data[at : at + len(values)] = values
    return kit.with_check(data)


WEIGHTS_AT = 14 + 3 * 2


def test_a_broken_file_is_named(tmp_path):
    """The golden vectors have a file for each rule."""
    path = tmp_path / "broken.sqsprior"
    for data, message in (
        (small()[:-1], "should have 539 bytes, but has 538"),
        (changed(10, 1), "its vocabulary has 1 ids; 2 to 1048576 are allowed"),
        (changed(WEIGHTS_AT, 241), r"class 0 sum to 2281701376; at most 2\^31"),
    ):
        path.write_bytes(data)
        refuses(f"^the data is not a prior: .*{message}", sqs.Prior.from_bytes, data)
        refuses(f".sqsprior is not a prior: .*{message}", sqs.Prior.load, path)


def test_the_limits_of_each_rule():
    """Limits that are just allowed: weights of 2^31, and codes of kinds without ids."""
    assert sqs.Prior.from_bytes(small()).vocab_size == 3
    assert sqs.Prior.from_bytes(changed(WEIGHTS_AT + 2, 255)).classes == 2
    largest = kit.make_prior(1 << 20, 1)
    assert sqs.Prior.from_bytes(largest.to_bytes()) == largest
    assert kit.make_prior(2, 32).classes == 32


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files(seed):
    """They are refused with ValueError, or are priors; the reference agrees."""
    rng = np.random.default_rng(seed)
    good = kit.any_prior(rng, int(rng.choice([2, 3, 8, 17]))).to_bytes()
    legal = 0
    for _ in range(MUTATIONS // 4):
        data = kit.mutate_prior(rng, good)
        try:
            expected = reference.parse(data)
        except BrokenRuleError:
            refuses("not a prior", sqs.Prior.from_bytes, data)
        else:
            legal += 1
            kinds = sqs.Prior.from_bytes(data)._tables.kinds.tolist()
            assert list(expected.kinds) == kinds
    assert legal > MUTATIONS // 40


def test_bad_files_and_bytes_are_refused(tmp_path):
    refuses("missing", sqs.Prior.load, tmp_path / "missing", error=FileNotFoundError)
    for call, wrong in (sqs.Prior.load, b"bytes"), (sqs.Prior.from_bytes, "text"):
        for given in (1, None, wrong):
            with pytest.raises(TypeError):
                call(given)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.write(small())
        file.truncate(1 << 40)  # takes no room, but would if it was read
    refuses("should have 539 bytes, but has over 1057", sqs.Prior.load, huge)


def test_built_in_priors():
    for name in _builtin_files():
        prior = sqs.Prior.builtin(name)
        assert agreed_prior(prior.digest.hex(), None) == prior


# Codecs


@pytest.fixture
def prior():
    return kit.make_prior(1000, 5)


@pytest.fixture
def codec(prior):
    return sqs.Codec(1000, 50, prior=prior)


def test_a_config_names_its_prior(codec, prior):
    """test_round_trip.py makes codecs of configs with the right one."""
    make, config = sqs.Codec.from_config, codec.config()
    digest, other = prior.digest.hex(), kit.make_prior(1000, 2)
    refuses(f"needs the prior '{digest}', which", make, config)
    needed = f"needs the prior {digest}, got {other.digest.hex()}"
    refuses(needed, make, config, other)
    refuses("vocab_size is 999", make, config | {"vocab_size": 999}, prior)
    none = sqs.Codec(1000, 50).config()
    refuses("the config has no prior, but one was given", make, none, prior)
    refuses("prior must be a Prior, got str", make, config, digest, error=TypeError)
    wrong = config | {"prior": 1}
    refuses("prior must be a string or None, got i", make, wrong, error=TypeError)


def test_a_config_finds_a_built_in_prior(codec, prior, tmp_path, monkeypatch):
    prior.save(tmp_path / "ours.sqsprior")
    kit.make_prior(17, 2).save(tmp_path / "another.sqsprior")
    files = {name: tmp_path / f"{name}.sqsprior" for name in ("another", "ours")}
    monkeypatch.setattr(module, "_builtin_files", lambda: files)
    assert sqs.Prior.builtin("ours") == prior
    assert sqs.Codec.from_config(codec.config()) == codec
    refuses(r"one of \['another', 'ours'\], got 'theirs'", sqs.Prior.builtin, "theirs")
