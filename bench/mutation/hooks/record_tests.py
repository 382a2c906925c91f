"""A pytest plugin that records what each test runs, and how long it takes.

Coverage knows at every moment which test is running (`Coverage.switch_context`), and so do the processes that a test
starts (`MUTANT_CONTEXT`). A fixture that several tests share is a context of its own, because each of them depends on
it. The processor time of tests and shared fixtures, with that of the processes that they start and wait for, and how
long they took in all are written to the JSON file that `MUTANT_RECORD` names. Processor time is what a test costs also
on a machine that is busy with something else.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

SHARED = "fixture:"
"""Before the name of a shared fixture, where a context is not a test's."""

_tests: dict[str, dict] = {}
_fixtures: dict[str, dict] = {}


class _Clock:
    """Processor seconds and elapsed seconds since the start of a test, without those of the shared fixtures in it."""

    def __init__(self) -> None:
        self.started, self.inner = _now(), (0.0, 0.0)

    def own(self) -> tuple[float, float]:
        now = _now()
        return now[0] - self.started[0] - self.inner[0], now[1] - self.started[1] - self.inner[1]


def _now() -> tuple[float, float]:
    return sum(os.times()[:4]), time.monotonic()


_clocks: list[_Clock] = []
"""The clock of the running test, then the clocks of the shared fixtures that are being set up, the innermost last."""


def _switch(context: str) -> None:
    os.environ["MUTANT_CONTEXT"] = context
    if running := coverage.Coverage.current():
        running.switch_context(context)


def _key(definition: pytest.FixtureDef) -> str:
    return f"{SHARED}{definition.baseid}::{definition.argname}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    definitions = [found[-1] for found in item._fixtureinfo.name2fixturedefs.values() if found]
    shared = sorted(_key(each) for each in definitions if each.scope != "function")
    _clocks[:] = [_Clock()]
    _switch(item.nodeid)
    yield
    _switch("")
    seconds, elapsed = _clocks[0].own()
    _tests.setdefault(item.nodeid, {}).update(seconds=seconds, elapsed=elapsed, shared=shared)


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> Iterator[None]:
    if fixturedef.scope == "function":
        yield
        return
    before = os.environ["MUTANT_CONTEXT"]
    _switch(_key(fixturedef))
    _clocks.append(_Clock())
    yield
    _switch(before)
    # Fixtures that this one asked for are counted as their own.
    clock = _clocks.pop()
    seconds, elapsed = clock.own()
    known = _fixtures.get(_key(fixturedef), {"seconds": 0.0})
    if seconds >= known["seconds"]:
        _fixtures[_key(fixturedef)] = {"seconds": seconds, "elapsed": elapsed}
    outer = _clocks[-1]
    outer.inner = (outer.inner[0] + clock.inner[0] + seconds, outer.inner[1] + clock.inner[1] + elapsed)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.outcome != "passed":
        _tests.setdefault(report.nodeid, {})["outcome"] = report.outcome


def pytest_sessionfinish() -> None:
    Path(os.environ["MUTANT_RECORD"]).write_text(json.dumps({"tests": _tests, "fixtures": _fixtures}), "utf-8")
