"""A job's own process: what it reports and how often, how it ends, and how it is stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backend import child_process
from backend.errors import Cancelled, EffigyError
from backend.progress import STOPPED_SENTENCE
from backend.service import commands, job_process, jobs
from backend.service.job_messages import CANCELLED, FAILED, JobOrder
from backend.service.job_process import ChannelProgress
from backend.service.job_specs import JOB_REQUESTS
from backend.service.jobs import AFTER_A_CRASH, JobProcess
from backend.service.requests import CaptureRequest

ROOT = Path(__file__).resolve().parents[2]


class Reports:
    """What a progress sends, on a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.sent: list[dict[str, Any]] = []
        monkeypatch.setattr(job_process.time, "monotonic", lambda: self.now)
        self.progress = ChannelProgress(SimpleNamespace(send=self.sent.append))

    def of(self, event: str, field: str) -> list[Any]:
        return [each[field] for each in self.sent if each["event"] == event]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Reports:
    return Reports(monkeypatch)


# --- what is reported


def test_progress_is_reported_ten_times_a_second_with_each_stages_beginning_and_end(reports: Reports) -> None:
    for done in range(11):
        reports.progress.update("skin", done, 10)
        reports.now += 0.0625
    reports.progress.update("cropping", 0, 10)
    reports.progress.update("cropping", 1, 10)
    assert reports.of("progress", "done") == [0, 2, 4, 6, 8, 10, 0]
    assert reports.of("progress", "total") == [10] * 7
    assert reports.of("progress", "stage")[-2:] == ["Aligning frames to the skin", "Cropping the frames to the head"]


def test_the_time_left_belongs_to_the_stage_that_runs(reports: Reports) -> None:
    reports.progress.update("skin", 0, 10)
    reports.now += 5
    reports.progress.update("cropping", 0, 10)
    reports.now += 2
    reports.progress.update("cropping", 4, 10)
    assert reports.of("progress", "rate") == [None, None, pytest.approx(2)]
    assert reports.of("progress", "eta") == [None, None, pytest.approx(3)]


def test_a_commands_own_previews_are_shown_once_a_second_at_most(reports: Reports) -> None:
    for level in range(6):
        reports.progress.preview(np.full((2, 2, 3), level, np.uint8))
        reports.now += 0.5
    assert [int(image.max()) for image in reports.of("preview", "image")] == [0, 2, 4]


def test_previews_that_are_drawn_come_every_two_seconds_and_an_empty_one_does_not_count(reports: Reports) -> None:
    drawn: list[tuple[int, int]] = []

    def draw(done: int, total: int) -> np.ndarray | None:
        drawn.append((done, total))
        return None if done == 1 else np.full((2, 2, 3), done, np.uint8)

    reports.progress.draw_preview = draw
    for done in range(1, 8):
        reports.progress.update("skin", done, 9)
        reports.now += 1
    assert drawn == [(1, 9), (2, 9), (4, 9), (6, 9)]
    assert [int(image.max()) for image in reports.of("preview", "image")] == [2, 4, 6]


def test_where_nobody_looks_no_preview_is_drawn_or_sent(reports: Reports) -> None:
    reports.progress.shows_previews = False
    reports.progress.draw_preview = lambda done, total: pytest.fail("drawn for nobody")
    reports.progress.update("skin", 1, 9)
    reports.progress.preview(np.zeros((2, 2, 3), np.uint8))
    assert not reports.of("preview", "image")


def test_a_preview_that_finds_no_room_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(message: dict[str, Any]) -> None:
        if message["event"] == "preview":
            raise EffigyError("The disk is full.")

    ChannelProgress(SimpleNamespace(send=send)).preview(np.zeros((2, 2, 3), np.uint8))


def test_a_message_is_passed_on_and_a_stop_is_seen(reports: Reports) -> None:
    reports.progress.message("A sentence.")
    assert reports.sent == [{"event": "message", "text": "A sentence."}]
    reports.progress.raise_if_cancelled()
    reports.progress.stopped = True
    with pytest.raises(Cancelled, match="Stopped by the user"):
        reports.progress.raise_if_cancelled()


# --- how it ends

CAPTURE = JobOrder("capture", {"video": "/a.mp4", "capture": "/a.capture"}, False, [], previews=False)


def last_event(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setitem(commands._FUNCTIONS, CaptureRequest, fails)
    event = job_process._carry_out(CAPTURE, ChannelProgress(SimpleNamespace(send=lambda message: None)))
    return event.name, event.fields["message"]


@pytest.mark.parametrize(
    ("error", "name", "sentence"),
    [
        (EffigyError("No face."), FAILED, "No face."),
        (Cancelled("Stopped, and kept."), CANCELLED, "Stopped, and kept."),
        (KeyboardInterrupt(), CANCELLED, STOPPED_SENTENCE),
        (ImportError("No module", name="numba"), FAILED, "The backend's Python lacks numba: install it again."),
        (ImportError("libGL.so"), FAILED, "The backend's Python lacks libGL.so: install it again."),
        (ZeroDivisionError("by zero"), FAILED, "because of a defect in Effigy (ZeroDivisionError: by zero)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_whatever_ends_the_work_becomes_a_sentence(
    error: BaseException, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = last_event(error, monkeypatch)
    assert found[0] == name and sentence in found[1]


def test_a_job_that_does_not_stop_is_interrupted_and_then_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[object] = []
    monkeypatch.setattr(job_process.time, "sleep", happened.append)
    monkeypatch.setattr(job_process._thread, "interrupt_main", lambda: happened.append("interrupted"))
    monkeypatch.setattr(job_process.os, "_exit", lambda code: happened.append(f"ended with {code}"))
    job_process._end_within(10.0, 30.0)
    assert happened == [10.0, "interrupted", 30.0, "ended with 1"]


def script(code: str, monkeypatch: pytest.MonkeyPatch, low_priority: bool = True) -> None:
    """A Python program in the place of every job's process, which must be started with this priority."""
    real = child_process.start

    def start(command: list[str], **options: Any) -> subprocess.Popen[Any]:
        assert command[1:] == ["-m", "backend.service.job_process"]
        assert options["low_priority"] is low_priority
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(jobs.child_process, "start", start)


@pytest.mark.parametrize("kind", [*JOB_REQUESTS, "doctor"])
def test_a_process_that_ends_without_a_word_fails_the_job_with_what_to_do(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What goes with a camera must not wait for other programs.
    script("raise SystemExit(3)", monkeypatch, low_priority=kind != "live")
    (event,) = JobProcess(kind, {}).events()
    assert event.name == FAILED
    sentence = "The job's process ended unexpectedly (exit code 3)."
    assert event.fields["message"] == f"{sentence} {AFTER_A_CRASH[kind]}"


def test_what_a_library_prints_among_the_events_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("a banner", '{"event": "message", "text": "Hm."}', '{"event": "done", "result": {"a": 1}}', "bye")
    script(f"print({chr(10).join(lines)!r})", monkeypatch)
    events = list(JobProcess("train", {}).events())
    assert [(event.name, event.fields) for event in events] == [
        ("message", {"text": "Hm."}),
        ("done", {"result": {"a": 1}}),
    ]


def test_a_job_gets_its_environment_and_its_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFIGY_TEST_A", "ours")
    monkeypatch.setenv("EFFIGY_TEST_B", "ours")
    script(
        "import json, os, sys\n"
        "order, stop = (json.loads(sys.stdin.readline()) for _ in range(2))\n"
        "said = f\"{order['kind']} {order['params']['a']} {order['previews']} {stop}\"\n"
        "said += os.environ['EFFIGY_TEST_A'] + ' ' + os.environ['EFFIGY_TEST_B']\n"
        "print(json.dumps({'event': 'cancelled', 'message': said}))",
        monkeypatch,
    )
    job = JobProcess("train", {"a": 7}, environment={"EFFIGY_TEST_B": "theirs"})
    job.stop()
    (event,) = job.events()
    assert event.name == CANCELLED
    assert event.fields["message"] == "train 7 False {'cancel': True}ours theirs"


def test_no_process_where_none_can_be_started_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(jobs.child_process, "start", full)
    with pytest.raises(EffigyError, match=r"could be started \(Resource temporarily unavailable\): close other prog"):
        JobProcess("train", {})


def test_a_real_job_says_why_it_failed_and_its_process_ends_well(tmp_path: Path) -> None:
    job = JobProcess("capture", {"video": "/nowhere.mp4", "capture": str(tmp_path / "x.capture")})
    *_, last = job.events()
    assert last.name == FAILED and "/nowhere.mp4" in last.fields["message"]
    assert job._process.wait(20) == 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["backend.service.job_process", "backend"])
def test_a_worker_and_a_job_that_nobody_talks_to_end_well(module: str) -> None:
    words = ["serve"] if module == "backend" else []
    ended = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert ended.returncode == 0 and ended.stdout == b""
