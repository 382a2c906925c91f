"""The bench that breaks lines: it finds the tests behind a line, and changes what is run without changing a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.mutation.covering_tests import HOOKS, CoveringTests, Workplace
from bench.mutation.figures import Figures
from bench.mutation.trial import Break, Interrupted, KeptOutcomes, Outcome, try_break, watch

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


@lru_cache
def table():
    return 5


def look_up():
    return table()
"""
CLIP, TOTAL, FIXTURE = "test_a.py::test_clip", "test_a.py::test_total", "fixture:test_a.py::values"


@pytest.fixture
def covering(tmp_path: Path) -> CoveringTests:
    """`total` runs in a fixture that two tests share; coverage sees nothing of the kernel that it calls."""
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend" / "part.py").write_text(SOURCE)
    lines = {"backend/part.py": {1: set(), 11: {CLIP}, 15: {FIXTURE}, 28: {CLIP}}}
    tests = {
        CLIP: {"seconds": 6.0, "shared": []},
        TOTAL: {"seconds": 1.0, "shared": [FIXTURE]},
        "test_a.py::test_mean": {"seconds": 2.0, "shared": [FIXTURE]},
    }
    return CoveringTests(tmp_path, lines, tests, {FIXTURE: {"seconds": 3.0}})


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
        (24, {CLIP}),
    ],
    ids=[
        "a line",
        "a constant",
        "a constant of a constant",
        "a default",
        "a kernel",
        "a fixture",
        "untested",
        "cached",
    ],
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


def started(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen((sys.executable, "-c", code), start_new_session=True, stdout=subprocess.PIPE)


def test_a_run_is_ended_by_its_processor_time_and_not_by_the_clock() -> None:
    never = threading.Event()
    assert watch(started("import time; time.sleep(1.5)"), 0.5, never, idle_seconds=30)
    process = started("import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])")
    assert not watch(process, 0.5, never), "the time of its children counts"
    assert process.poll() is not None


def test_a_run_whose_processes_wait_for_each_other_is_ended_with_all_that_it_started() -> None:
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], "
        "start_new_session=True); print(child.pid, flush=True); time.sleep(99)"
    )
    process = started(code)
    child = int(process.stdout.readline())
    assert not watch(process, 60, threading.Event(), idle_seconds=1)
    until = time.monotonic() + 5
    while (Path(f"/proc/{child}/stat")).exists() and time.monotonic() < until:
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{child}/stat").exists()


def test_a_run_stops_when_the_bench_is_ended() -> None:
    stop = threading.Event()
    stop.set()
    process = started("import time; time.sleep(99)")
    with pytest.raises(Interrupted):
        watch(process, 60, stop)
    assert process.poll() is not None


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """A tree with one source file and one test of it."""
    workplace = Workplace(tmp_path, tmp_path / "packages")
    for folder in (workplace.tree, workplace.caches, workplace.packages):
        folder.mkdir()
    (workplace.tree / "part.py").write_text("VALUE = 1\n")
    (workplace.tree / "test_part.py").write_text("import part\n\ndef test_value(): assert part.VALUE < 3\n")
    return workplace


def break_of(text: str, line: int = 1) -> Break:
    tests = ("test_part.py::test_value",)
    return Break("part.py", SimpleNamespace(line=line, kind="number"), text, tests, depending=2, seconds=0.1)


def test_a_break_that_a_test_notices_is_told_from_one_that_none_does(workplace: Workplace) -> None:
    noticed, unnoticed = (try_break(workplace, break_of(f"VALUE = {n}\n"), threading.Event()) for n in (3, 2))
    assert noticed.noticed and noticed.how == "test_part.py::test_value"
    assert not unnoticed.noticed and unnoticed.how == "1 of 2 tests ran"
    assert (workplace.tree / "part.py").read_text() == "VALUE = 1\n"
    assert not list(workplace.folder.glob("try-*"))


def test_tests_that_were_ended_from_outside_tell_nothing(workplace: Workplace) -> None:
    text = f"import os, time\nos.kill(os.getpid(), {int(signal.SIGTERM)})\ntime.sleep(9)\n"
    with pytest.raises(Interrupted):
        try_break(workplace, break_of(text), threading.Event())


def test_an_outcome_is_kept_until_the_break_or_one_of_its_tests_changes(workplace: Workplace) -> None:
    kept, change = KeptOutcomes(workplace), break_of("VALUE = 2\n")
    assert kept.find(change) is None
    kept.keep(change, Outcome(False, "1 of 2 tests ran", 3.0))
    assert KeptOutcomes(workplace).find(change) == Outcome(False, "1 of 2 tests ran", 3.0)
    assert kept.find(break_of("VALUE = 4\n")) is None
    (workplace.tree / "test_part.py").write_text("import part\n\ndef test_value(): assert part.VALUE < 2\n")
    assert kept.find(change) is None


def test_figures_replace_the_end_of_a_page_and_name_what_was_not_noticed(workplace: Workplace) -> None:
    breaks = [break_of("VALUE = 3\n"), break_of("VALUE = 2\n"), break_of("VALUE = 4\n")]
    outcomes = {0: Outcome(True, "a test", 1.0), 1: Outcome(False, "1 of 2 tests ran", 1.0)}
    page = workplace.folder / "page.md"
    page.write_text("# What it is\n\n## Figures\n\nOf long ago.\n")
    Figures.of(breaks, outcomes, workplace.tree, seed=4, budget=60.0).write_into(page)
    text = page.read_text()
    assert text.startswith("# What it is\n\n## Figures\n\nSeed 4, ") and "long ago" not in text
    assert "ended after 2 of its 3 breaks" in text and "**1 of 2 breaks noticed, 50 %**" in text
    assert "`part.py:1`, number:" in text and "-VALUE = 1\n+VALUE = 2" in text and "+VALUE = 3" not in text
