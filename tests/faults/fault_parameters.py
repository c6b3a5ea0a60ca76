"""Hostile values for every parameter of every chapter: each is taken because it is allowed, or refused in a sentence."""

import math

import pytest

from robustutils.book import pipeline, runs
from robustutils.book.claims import Claims
from robustutils.book.parameters import ParameterError

HOSTILE = (
    math.nan, math.inf, -math.inf, -1, 0, 10**12, 10**5000, 1e308, 5e-324, True, 0.5, 3 + 4j,
    "", " ", ",", ",,a", "standard", "nan", "'; import os", "$a_$b^{", "\0", "é" * 3, "x" * 100_000, "mnist,mnist",
    (), [], [[]], [None], ["mnist", 3], {}, {"a": 1}, {1, 2}, b"mnist", object(), len, ...,
)  # fmt: skip
CHAPTERS = {chapter: Claims.of(chapter) for chapter in pipeline.chapters()}
CASES = [
    (chapter, name)
    for chapter, claims in CHAPTERS.items()
    for name in ("profile", "device", *claims.parameters)
]


@pytest.mark.parametrize(("chapter", "name"), CASES, ids=map("-".join, CASES))
def test_a_hostile_value_is_allowed_or_refused_by_its_name(chapter, name):
    claims = CHAPTERS[chapter]
    usual = {
        **dict.fromkeys(claims.parameters),
        "profile": "quick",
        "device": "cpu",
        "model": "m:f",
        "weights": None,
    }
    said = []
    for value in HOSTILE:
        try:
            runs.start(claims, {**usual, name: value})
        except ParameterError as error:
            said.append(str(error))
    assert said, "most of these values are not allowed"
    assert [message for message in said if name not in message or len(message) > 1000] == []


def test_there_are_five_hundred_sets():
    assert len(CASES) * len(HOSTILE) >= 500
