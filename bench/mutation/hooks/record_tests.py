"""A pytest plugin that records what each test runs, and how long it takes.

Coverage knows at every moment which test is running (`Coverage.switch_context`), and so do the processes that a test
starts (`MUTANT_CONTEXT`). A fixture that several tests share is a context of its own, because each of them depends on
it. Durations and shared fixtures are written to the JSON file that `MUTANT_RECORD` names.
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
_fixtures: dict[str, float] = {}
_clock = {"started": 0.0, "inner": 0.0}


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
    _clock.update(started=time.monotonic(), inner=0.0)
    _switch(item.nodeid)
    yield
    _switch("")
    seconds = time.monotonic() - _clock["started"] - _clock["inner"]
    _tests.setdefault(item.nodeid, {}).update(seconds=seconds, shared=shared)


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> Iterator[None]:
    if fixturedef.scope == "function":
        yield
        return
    before, inner, started = os.environ["MUTANT_CONTEXT"], _clock["inner"], time.monotonic()
    _switch(_key(fixturedef))
    yield
    _switch(before)
    whole = time.monotonic() - started
    # Fixtures that this one asked for are counted as their own.
    own = whole - (_clock["inner"] - inner)
    _fixtures[_key(fixturedef)] = max(own, _fixtures.get(_key(fixturedef), 0.0))
    _clock["inner"] = inner + whole


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.outcome != "passed":
        _tests.setdefault(report.nodeid, {})["outcome"] = report.outcome


def pytest_sessionfinish() -> None:
    Path(os.environ["MUTANT_RECORD"]).write_text(json.dumps({"tests": _tests, "fixtures": _fixtures}), "utf-8")
