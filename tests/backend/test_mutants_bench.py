"""The bench that breaks lines: it finds the tests behind a line, and changes what is run without changing a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.mutation.covering_tests import HOOKS, CoveringTests

SOURCE = """LIMIT = 3
DOUBLE = 2 * LIMIT


@kernel()
def add(a, b):
    return a + b


def clip(value, most=LIMIT):
    return min(value, DOUBLE, most)


def total(values):
    return add(values, 0)


def untested():
    return 1
"""
CLIP, TOTAL, FIXTURE = "test_a.py::test_clip", "test_a.py::test_total", "fixture:test_a.py::values"


@pytest.fixture
def covering(tmp_path: Path) -> CoveringTests:
    """`total` runs in a fixture that two tests share; coverage sees nothing of the kernel that it calls."""
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend" / "part.py").write_text(SOURCE)
    lines = {"backend/part.py": {1: set(), 11: {CLIP}, 15: {FIXTURE}}}
    tests = {
        CLIP: {"seconds": 6.0, "shared": []},
        TOTAL: {"seconds": 1.0, "shared": [FIXTURE]},
        "test_a.py::test_mean": {"seconds": 2.0, "shared": [FIXTURE]},
    }
    return CoveringTests(tmp_path, lines, tests, {FIXTURE: 3.0})


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (11, {CLIP}),
        (1, {CLIP}),
        (2, {CLIP}),
        (10, {CLIP}),
        (7, {TOTAL, "test_a.py::test_mean"}),
        (15, {TOTAL, "test_a.py::test_mean"}),
        (19, set()),
    ],
    ids=["a line", "a constant", "a constant of a constant", "a default", "a kernel", "a fixture", "untested"],
)
def test_the_tests_behind_a_line_are_found(covering: CoveringTests, line: int, found: set[str]) -> None:
    assert covering.of("backend/part.py", [line]) == found


def test_the_cheapest_tests_come_first_and_a_shared_fixture_is_paid_for_once(covering: CoveringTests) -> None:
    every = covering.seconds.keys()
    assert covering.cheapest_first(every, 100) == [TOTAL, "test_a.py::test_mean", CLIP]
    assert covering.cheapest_first(every, 6) == [TOTAL, "test_a.py::test_mean"]
    assert covering.cheapest_first(every, 0) == [TOTAL], "one test at least"
    assert covering.seconds_of([TOTAL, "test_a.py::test_mean"]) == 6


def test_another_text_is_run_in_the_place_of_a_file_that_stays_as_it_is(tmp_path: Path) -> None:
    for name, text in (("part.py", "VALUE = 1\n"), ("other.py", "VALUE = 5\n"), ("changed.txt", "VALUE = 2\n")):
        (tmp_path / name).write_text(text)
    environment = {"MUTANT_FILE": os.path.realpath(tmp_path / "part.py"), "MUTANT_TEXT": str(tmp_path / "changed.txt")}
    command = (sys.executable, "-c", "import part, other; print(part.VALUE, other.VALUE)")
    paths = {"PYTHONPATH": os.pathsep.join((str(HOOKS), str(tmp_path)))}
    for changes, printed in ((environment, "2 5"), ({}, "1 5")):
        ended = subprocess.run(
            command, env=os.environ | paths | changes, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert ended.stdout.strip() == printed
    assert (tmp_path / "part.py").read_text() == "VALUE = 1\n"
