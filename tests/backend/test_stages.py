"""Progress as users see it: every stage of the pipeline has words, and the solver's own figures are not shown."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.service import job_process, terminal
from backend.service.job_process import ChannelProgress
from backend.service.stages import STAGES, StageClock, describe_stage
from backend.service.terminal import BarProgress, PlainProgress

BACKEND = Path(__file__).resolve().parents[2] / "backend"


def reported_stages() -> Iterator[tuple[str, str]]:
    """File and name of each stage that is reported: `progress.update("name", done, total)` or `stage="Name"`."""
    for path in sorted(BACKEND.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            names = [keyword.value for keyword in call.keywords if keyword.arg == "stage"]
            if isinstance(call.func, ast.Attribute) and call.func.attr == "update" and len(call.args) == 3:
                names.append(call.args[0])
            for name in names:
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield path.name, name.value


def test_every_stage_of_the_backend_has_words_and_no_words_are_left_over():
    found = set(reported_stages())
    missing = {(file, stage) for file, stage in found if stage not in STAGES}
    assert not missing, f"add to backend/service/stages.py: {missing}"
    assert {stage for _, stage in found} == set(STAGES)


def test_an_unknown_stage_is_shown_by_its_name():
    assert describe_stage("counting hairs") == "Counting hairs"


def test_a_log_shows_words_and_no_solver_figures(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    progress = PlainProgress(log)
    progress.update("skin", 0, 16, energy=12000.0)
    now[0] += 6
    progress.update("skin", 3, 16, energy=9960.0)
    assert log.getvalue() == "Aligning frames to the skin, 3 of 16  0.5/s  0:26 left\n"


def test_a_bar_shows_words_and_no_solver_figures(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("COLUMNS", "160")
    screen = io.StringIO()
    progress = BarProgress(screen)
    progress.update("skin", 0, 16)
    now[0] += 6
    progress.update("skin", 3, 16, energy=9960.0, psnr=21.5)
    progress.close()
    shown = screen.getvalue()
    assert "Aligning frames to the skin" in shown and "psnr 21.5" in shown and "9960" not in shown
    assert "3/16" in shown and "0.5/s  0:26 left" in shown


def test_a_job_reports_words_and_no_solver_figures(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(job_process.time, "monotonic", lambda: now[0])
    sent = []
    progress = ChannelProgress(SimpleNamespace(send=sent.append))
    progress.update("skin", 0, 16, energy=12000.0)
    now[0] += 6
    progress.update("skin", 3, 16, energy=9960.0, psnr=21.5)
    assert sent[-1] == {
        "event": "progress",
        "stage": "Aligning frames to the skin",
        "done": 3,
        "total": 16,
        "metrics": {"psnr": 21.5},
        "eta": pytest.approx(26.0),
        "rate": pytest.approx(0.5),
    }


def test_resumed_work_is_timed_from_where_it_began():
    clock = StageClock("Training", first=500, started=10.0)
    assert clock.rate(500, 20.0) is None and clock.seconds_left(500, 1000, 20.0) is None
    assert clock.rate(600, 20.0) == pytest.approx(10.0)
    assert clock.seconds_left(600, 1000, 20.0) == pytest.approx(40.0)
