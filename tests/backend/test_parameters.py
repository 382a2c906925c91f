"""Named parameters are read as they are meant, and a wrong one is named with what was found in its place."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.errors import EffigyError
from backend.service.parameters import Parameters


def read(values: Any, **options: Any) -> Parameters:
    return Parameters(values, "pose", **options)


def sentence(ask: Any) -> str:
    with pytest.raises(EffigyError) as refused:
        ask()
    return str(refused.value)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, "nothing"),
        ([1], "a list"),
        ("text", "“text”"),
        (3, "3"),
        (True, "true"),
        (float("inf"), "not a finite number"),
        ({1}, "set"),
    ],
)
def test_parameters_are_a_group_of_names(given: Any, found: str) -> None:
    assert sentence(lambda: read(given)) == f"pose takes its parameters by name, but got {found}."


def test_what_is_none_is_not_given() -> None:
    values = read({"a": None, "b": 0})
    assert not values.has("a") and not values.has("c") and values.has("b")
    assert values.number("a", 7) == 7 and values.text("a", None) is None and values.path("a", None) is None
    assert values.frame_rate("a", None) is None and values.array("a", (2,), "none") == "none"
    assert values.integer("a", None) is None and values.flag("a") is False and values.flag("a", True) is True
    for ask in (values.text, values.path, values.paths, values.number, values.integer, values.frame_rate):
        assert sentence(lambda ask=ask: ask("a")) == "pose needs “a”."
    assert sentence(lambda: values.array("a", (2,))) == sentence(lambda: values.group("a")) == "pose needs “a”."


def test_names_that_nobody_reads_are_refused_in_the_order_of_the_alphabet() -> None:
    values = read({"b": 1, "y": 2, "x": None})
    assert sentence(lambda: values.allow_only("b", "c")) == "pose has no parameter “x”: it takes b, c."
    assert sentence(values.allow_only) == "pose has no parameter “b”: it takes nothing."
    values.allow_only("b", "x", "y", "z")


def test_groups_carry_where_they_are_in_their_sentences() -> None:
    values = read({"inner": {"a": "x"}, "several": [{"b": 1}, {"b": "x"}], "path": "here"})
    assert values.group("inner").text("a") == "x"
    assert sentence(lambda: values.group("inner").number("a")) == "pose: inner: a must be a number, but is “x”."
    first, second = values.groups("several")
    assert first.number("b") == 1
    assert sentence(lambda: second.number("b")) == "pose: several[1]: b must be a number, but is “x”."
    assert sentence(lambda: values.groups("inner")) == "pose: inner must be a list, but is a group of values."
    assert sentence(lambda: values.group("path")) == "pose: path takes its parameters by name, but got “here”."


@pytest.mark.parametrize("absolute", [True, False])
def test_relative_paths_are_refused_in_groups_as_well(absolute: bool) -> None:
    inner = {"path": "a/b"}
    values = read({"group": inner, "groups": [inner], "path": "a/b", "paths": ["/x", "a/b"]}, absolute_paths=absolute)
    asked = (
        lambda: values.path("path"),
        lambda: values.group("group").path("path"),
        lambda: values.groups("groups")[0].path("path"),
        lambda: values.paths("paths")[1],
    )
    for ask in asked:
        if absolute:
            assert "must be a full path, but is “a/b”." in sentence(ask)
        else:
            assert ask() == Path("a/b")


def test_paths_are_one_or_several() -> None:
    values = read({"one": "/a", "two": ["/a", "/b"], "none": [], "wrong": ["/a", 3]})
    assert values.paths("one") == (Path("/a"),) and values.paths("two") == (Path("/a"), Path("/b"))
    assert sentence(lambda: values.paths("none")) == "pose: none must be text, but is a list."
    assert sentence(lambda: values.paths("wrong")) == "pose: wrong must be text, but is a list."


def test_text_may_have_choices() -> None:
    values = read({"a": "x", "b": 3, "c": ""})
    assert values.text("a") == "x" and values.text("a", choices=("w", "x")) == "x"
    assert sentence(lambda: values.text("a", choices=("v", "w"))) == "pose: there is no a “x”; choose one of v, w."
    assert sentence(lambda: values.text("b")) == "pose: b must be text, but is 3."
    assert values.text("missing", None, choices=("v",)) is None and values.text("c") == ""


def test_numbers_lie_in_their_range_with_its_ends() -> None:
    values = read({"a": 2, "b": 2.5, "c": 3.0, "d": True})
    assert values.number("a", minimum=2, maximum=2) == 2 and values.number("b", maximum=2.5) == 2.5
    assert values.integer("c") == 3 and type(values.integer("c")) is int and values.integer("a", maximum=2) == 2
    assert sentence(lambda: values.number("a", minimum=2.5)) == "pose: a is 2, but must be 2.5 or more."
    assert sentence(lambda: values.number("a", minimum=2, above_minimum=True)) == "pose: a is 2, but must be above 2."
    assert sentence(lambda: values.number("b", minimum=0, maximum=2)) == (
        "pose: b is 2.5, but must lie between 0 and 2."
    )
    assert sentence(lambda: values.integer("a", minimum=3)) == "pose: a is 2, but must be 3 or more."
    assert sentence(lambda: values.integer("b")) == "pose: b must be a whole number, but is 2.5."
    assert sentence(lambda: values.number("d")) == "pose: d must be a number, but is true."
    assert sentence(lambda: values.integer("d")) == "pose: d must be a whole number, but is true."
    for huge in (float("nan"), float("inf"), 10**400):
        said = sentence(lambda huge=huge: read({"a": huge}).number("a"))
        assert said == "pose: a must be a number, but is not a finite number."


def test_flags_are_true_or_false() -> None:
    values = read({"a": True, "b": False, "c": 1})
    assert values.flag("a") is True and values.flag("b", True) is False
    assert sentence(lambda: values.flag("c")) == "pose: c must be true or false, but is 1."


def test_frame_rates_are_those_of_broadcast() -> None:
    rates = {
        "30000/1001": Fraction(30000, 1001),
        29.97003: Fraction(30000, 1001),
        "60": Fraction(60),
        12.5: Fraction(25, 2),
    }
    for given, expected in rates.items():
        assert read({"fps": given}).frame_rate("fps") == expected
    for wrong in ("fast", "1/0", True, [25]):
        assert "fps must be a frame rate such as 25, 23.976 or 30000/1001, but is" in sentence(
            lambda wrong=wrong: read({"fps": wrong}).frame_rate("fps")
        )


def test_arrays_have_their_shape_and_only_finite_numbers() -> None:
    values = read(
        {"a": [[1, 2], [3, 4]], "b": [1, 2, 3], "c": 5, "d": "x", "e": [1.0, float("nan")], "f": [[1], [2, 3]]}
    )
    found = values.array("a", (2, 2))
    assert found.dtype == np.float64 and found.tolist() == [[1, 2], [3, 4]]
    assert sentence(lambda: values.array("a", (4,))) == "pose: a must be 4 numbers, but is 2 × 2."
    assert sentence(lambda: values.array("b", (2, 2))) == "pose: b must be 2 × 2 numbers, but is 3."
    assert sentence(lambda: values.array("c", (1,))) == "pose: c must be 1 numbers, but is one number."
    assert sentence(lambda: values.array("d", (1,))) == "pose: d must be 1 numbers, but is “x”."
    assert sentence(lambda: values.array("f", (2,))) == "pose: f must be 2 numbers, but is a list."
    assert sentence(lambda: values.array("e", (2,))) == "pose: e holds numbers that are not finite."
