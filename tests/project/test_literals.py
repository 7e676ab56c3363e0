"""Words of a fixed set: what editors complete is what is taken when it runs."""

import inspect
from collections.abc import Collection
from importlib.resources import files
from typing import get_args

import pytest

import sqs_codec as sqs
from sqs_codec._base.format import Coding
from sqs_codec.distill import NumberName
from sqs_codec.distill._header import NUMBERS
from sqs_codec.system.edge import Mode, Planner, Prefer
from sqs_codec.system.engine import ENGINES, Device, Dtype, EngineConfig, EngineName
from sqs_codec.system.session import Setting


def planner(**given):
    settings = [Setting(sqs.Codec(1000), sqs.TopK(4))]
    return Planner(settings, **given)


@pytest.mark.parametrize(
    ("of", "name", "literal", "call"),
    [
        (sqs.Codec, "coding", sqs.CodingName, lambda w: sqs.Codec(1000, coding=w)),
        (sqs.Prior.builtin, "name", sqs.PriorName, sqs.Prior.builtin),
        (Planner, "prefer", Prefer, lambda w: planner(prefer=w)),
        (Planner, "modes", Mode, lambda w: planner(modes=[w])),
        (EngineConfig, "engine", EngineName, lambda w: EngineConfig(engine=w)),
        (EngineConfig, "device", Device, lambda w: EngineConfig(device=w)),
        (EngineConfig, "dtype", Dtype, lambda w: EngineConfig(dtype=w)),
    ],
)
def test_a_parameter_takes_its_words_alone(of, name, literal, call):
    annotation = inspect.signature(of, eval_str=True).parameters[name].annotation
    assert annotation in (literal, literal | None, Collection[literal])
    for word in get_args(literal):
        call(word)
    with pytest.raises(ValueError, match=r"must be (one|some) of .*, got .*'typo'"):
        call("typo")


def test_tables_have_all_words():
    priors = {one.stem for one in files("sqs_codec").joinpath("priors").iterdir()}
    assert {one.name.lower() for one in Coding} == {*get_args(sqs.CodingName)}
    assert priors == {*get_args(sqs.PriorName)}
    assert {*ENGINES} == {*get_args(EngineName)}
    assert {*NUMBERS} == {*get_args(NumberName)}
