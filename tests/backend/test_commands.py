"""What a command does around its work: sentences for the system's errors, exit codes, and a path tried beforehand."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_capture import make_small_capture

from backend.errors import Cancelled, EffigyError
from backend.progress import SILENT, STOPPED_SENTENCE, Progress
from backend.service import cli, commands, doctor, results
from backend.service.cli import main
from backend.service.commands import check_writable, run
from backend.service.request_fields import Request
from backend.service.requests import DoctorRequest, ReportRequest

ROOT = Path(__file__).resolve().parents[2]
REPORT = ReportRequest(Path("/a.capture"), Path("/films/report.png"))


class OutOfMemoryError(RuntimeError):
    """Stands for PyTorch's exception of this name."""


def failing(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, request_class: type[Request] = ReportRequest
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setitem(commands._FUNCTIONS, request_class, fails)


MEMORY = "There is not enough memory: choose a smaller size, or close other programs."


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "/films/gone.mp4"), "There is no file /films/gone.mp4."),
        (OSError(errno.ENOSPC, "No space left on device"), "/films"),
        (PermissionError(errno.EACCES, "denied", "/films/x"), "/films/x"),
        (OSError("libGLESv2.so.2: cannot open shared object file: No such file or directory"), "install it (on Debian"),
        (MemoryError(), MEMORY),
        (OutOfMemoryError("tried to allocate"), MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), MEMORY),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_of_the_system_become_sentences(
    error: BaseException, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(error, monkeypatch)
    with pytest.raises(EffigyError) as refused:
        run(REPORT, SILENT)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("error", [BrokenPipeError(), RuntimeError("shapes differ"), ValueError("a defect")])
def test_other_errors_stay_what_they_are(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(error, monkeypatch)
    with pytest.raises(type(error)) as kept:
        run(REPORT, SILENT)
    assert kept.value is error


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (EffigyError("Two\n lines."), 2, "Two lines.\n"),
        (Cancelled("Stopped, and kept."), 130, "Stopped, and kept.\n"),
        (KeyboardInterrupt(), 130, f"{STOPPED_SENTENCE}\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_command_that_fails_or_is_stopped_says_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error, monkeypatch)
    assert main(["report", "a", "b"]) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", said)


@pytest.mark.parametrize(
    ("states", "code", "error"),
    [
        (("done", "done"), 0, ""),
        (("done", "waiting", "failed"), 2, "2 of 3 clips are not done; /out/batch.csv says why.\n"),
    ],
)
def test_a_batch_fails_if_a_clip_does(
    states: tuple[str, ...],
    code: int,
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = tuple(results.BatchRow(f"clip {number}", state) for number, state in enumerate(states))
    made = results.BatchResult(Path("/out"), Path("/out/batch.csv"), rows)
    monkeypatch.setattr(cli, "run", lambda *_: made)
    assert main(["batch", "a.csv"]) == code
    printed = capsys.readouterr()
    assert printed.err == error and printed.out.count("clip ") == len(states)


@pytest.mark.skipif(os.name != "posix", reason="a pipe of a POSIX shell")
def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import os, sys\n"
        "from types import SimpleNamespace\n"
        "from backend.service import cli\n"
        "cli.run, cli.describe = (lambda *_: SimpleNamespace()), (lambda _: 'x' * 200_000)\n"
        "sys.exit(cli.main(['report', 'a', 'b']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 1 and process.stderr.read() == ""
    process.stderr.close()


def test_the_worker_is_a_command_too(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[bool] = []
    monkeypatch.setattr("backend.service.worker.serve", lambda: served.append(True))
    assert main(["serve"]) == 0 and served == [True]


def test_a_path_is_tried_without_a_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder" / "file.png")
    check_writable(tmp_path / "file.png")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(EffigyError, match="cannot be written"):
        check_writable(tmp_path / "file" / "x.png")


@pytest.mark.parametrize(("flags", "residual"), [([0, 16, 0, 0], 2.0), ([16, 16, 0, 0], 3.5), ([16, 16, 16, 16], None)])
def test_a_track_is_summed_up_by_its_reliable_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[int], residual: float | None
) -> None:
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    track = replace(
        make_small_capture(tmp_path, frames=4)[1],
        residual=np.array([1.0, 9.0, 2.0, 5.0], np.float32),
        flags=np.array(flags, np.int32),
    )
    folder = tmp_path / "ball.capture"
    expected = results.TrackSummary(folder, folder / "track.npz", 4, flags.count(0), residual, 64)
    assert commands._summarise(folder, track) == expected


# --- the doctor

SUBJECTS = ("Python", "PyTorch", "GPU", "GPU rasteriser", "CPU rasteriser", "Video", "Detector", "Open head")


@pytest.fixture
def light_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor without the checks that load models."""
    for name, subject in (("_detector", "Detector"), ("_hed", "Image comparison"), ("_lpips", "LPIPS")):
        finding = results.Finding(subject, results.OK, "not loaded in this test")
        monkeypatch.setattr(doctor, name, lambda finding=finding: finding)


def test_the_doctor_examines_what_the_pipeline_needs_in_its_order(light_doctor: None) -> None:
    found = doctor.examine()
    assert [finding.subject for finding in found] == [*SUBJECTS, "Image comparison", "LPIPS", "Disk"]
    told = {finding.subject: finding for finding in found}
    assert all(told[name].state == results.OK for name in (*SUBJECTS[:2], *SUBJECTS[4:]))
    assert told["Video"].explanation.endswith("reads h264, hevc, vp9, av1, prores, mjpeg")
    assert told["Open head"].explanation.endswith("52 expression components")
    assert f"{os.cpu_count()} cores" in told["CPU rasteriser"].explanation


def test_a_check_that_fails_in_any_way_is_a_finding(light_doctor: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by zero")

    def refused() -> None:
        raise EffigyError("A sentence.")

    monkeypatch.setattr(doctor, "_open_head", broken)
    monkeypatch.setattr(doctor, "_disk", refused)
    told = {finding.subject: finding for finding in doctor.examine()}
    assert told["Open head"] == results.Finding("Open head", "broken", "ZeroDivisionError: by zero")
    assert told["Disk"] == results.Finding("Disk", "broken", "A sentence.")


@pytest.mark.parametrize(("free", "state"), [(5_000_000_001, "ok"), (5_000_000_000, "missing"), (0, "missing")])
def test_five_gigabytes_must_be_free(free: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert doctor._disk() == results.Finding("Disk", state, f"{free / 1e9:.0f} GB free in this folder")


def test_a_build_that_cannot_write_mp4_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._can_write("libx264") and not doctor._can_write("no such codec")
    monkeypatch.setattr(doctor, "_can_write", lambda codec: False)
    found = doctor._codecs()
    assert found.state == results.BROKEN and found.explanation.endswith("; libx264, so MP4 cannot be written")


@pytest.mark.parametrize(("found", "state"), [(None, "missing"), (("lpips 0.1 (alex)", None), "ok")])
def test_weights_that_are_not_needed_are_not_missed(found: Any, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.training.perceptual.find_lpips", lambda: found)
    finding = doctor._lpips()
    assert finding.state == state
    assert ("nothing is missing" in finding.explanation) == (found is None) != ("lpips 0.1" in finding.explanation)


def test_only_a_check_fails_for_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [
        results.Finding("Python", "ok", "3.11"),
        results.Finding("Video", "broken", "No MP4."),
        results.Finding("GPU", "missing", "None."),
        results.Finding("Disk", "broken", "Full."),
    ]
    asked: list[str | None] = []

    def examine(train_on: str | None) -> list[results.Finding]:
        asked.append(train_on)
        return findings

    monkeypatch.setattr(doctor, "examine", examine)
    assert run(DoctorRequest(device="cpu"), SILENT) == results.DoctorResult(tuple(findings))
    with pytest.raises(EffigyError, match=r"^Video: No MP4\. Disk: Full\.$"):
        run(DoctorRequest(check=True, device="cpu"), SILENT)
    del findings[1], findings[2]
    assert run(DoctorRequest(check=True), SILENT) == results.DoctorResult(tuple(findings))
    assert asked == [None, "cpu", "auto"]


class Said(Progress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.mark.parametrize("reason", ["The GPU failed.", None])
def test_only_a_failure_of_the_gpu_starts_a_command_again(reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def work(*_: object) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("launch failure")
        return "made"

    monkeypatch.setitem(commands._FUNCTIONS, ReportRequest, work)
    monkeypatch.setattr("backend.devices.give_up_cuda", lambda error: reason)
    said = Said()
    if reason is None:
        with pytest.raises(RuntimeError, match="launch failure"):
            run(REPORT, said)
        assert len(calls) == 1 and not said.messages
        return
    assert run(REPORT, said) == "made"
    assert len(calls) == 2 and said.messages == ["The GPU failed. Starting again on the CPU."]
