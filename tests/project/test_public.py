"""Promises change only together with `public.txt`; type aliases list all words."""

from importlib.resources import files
from typing import get_args

import sqs_codec as sqs
from sqs_codec._base.format import Coding
from sqs_codec.distill._header import EXTRAS, ExtraName
from sqs_codec.system.engine import EngineName
from sqs_codec.system.engine._registry import ENGINES
from tests.project.public import SNAPSHOT, snapshot


def test_public_names_match_their_snapshot():
    advice = "is the change meant? Then: python -m tests.project.public --write"
    assert snapshot().splitlines() == SNAPSHOT.read_text("utf-8").splitlines(), advice


def test_type_aliases_list_all_words():
    priors = {one.stem for one in files("sqs_codec").joinpath("priors").iterdir()}
    assert {one.name.lower() for one in Coding} == {*get_args(sqs.CodingName)}
    assert priors == {*get_args(sqs.PriorName)}
    assert {*ENGINES} == {*get_args(EngineName)}
    assert {*EXTRAS} == {*get_args(ExtraName)}
