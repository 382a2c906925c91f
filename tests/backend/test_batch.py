"""A batch on this machine: it can be killed or stopped, does finished work once, and survives one clip's fault."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from footage_clips import write_clip
from small_capture import make_small_capture

from backend.cores import core_count
from backend.errors import Cancelled, EffigyError
from backend.progress import SILENT, Progress
from backend.service.batch import local, stage_run, table
from backend.service.batch.overview import Overview, time_left_in_words
from backend.service.batch.run import _outcome_of, run_clips
from backend.service.batch.sheet import Clip, read_sheet
from backend.service.batch.stage_run import FAILED_STATE, FINISHED, STOPPED, StageOrder, StageOutcome, run_stage
from backend.service.batch.stages import ClipFiles
from backend.service.batch.witness import witness_in
from backend.service.cli import main
from backend.service.job_messages import CANCELLED, DONE, FAILED, JobEvent
from backend.service.jobs import JobProcess

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Holds a small tracked capture, `ball.capture`."""
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    make_small_capture(tmp_path, frames=10)
    return tmp_path


@dataclass
class Jobs:
    started: list[tuple[str, bool]] = field(default_factory=list)
    """Clip and kind of the jobs that were really started, and whether they resume."""
    shown: set[str] = field(default_factory=set)
    """What their progress said is being done."""


@pytest.fixture
def jobs(monkeypatch) -> Jobs:
    seen = Jobs()

    class Recorded(JobProcess):
        def __init__(self, kind, params, *rest, **options):
            seen.started.append((f"{Path(params['capture']).stem} {kind}", bool(params.get("resume"))))
            super().__init__(kind, params, *rest, **options)

        def events(self):
            for event in super().events():
                seen.shown.add(event.fields.get("stage", ""))
                yield event

    monkeypatch.setattr(stage_run, "JobProcess", Recorded)
    return seen


def wait_until(condition, seconds: float = 90):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def states(out: Path) -> dict[str, str]:
    return {row["clip"]: row["state"] for row in json.loads((out / "batch.json").read_text("utf-8"))["clips"]}


def test_a_batch_that_was_killed_goes_on_without_doing_finished_work_again(folder, jobs, capsys):
    write_clip(folder / "wall.mp4", [np.full((96, 96, 3), 120, np.uint8)] * 4, pixels="yuv420p")
    (folder / "shots.csv").write_text(
        "name,footage,capture,minutes,evaluate\n"
        "wall,wall.mp4,,,\nanna,,ball.capture,0.02,no\nben,,ball.capture,0.04,no\n"
    )
    out = folder / "shots"
    first = subprocess.Popen(
        [sys.executable, "-m", "backend", "batch", "shots.csv", "--at-once", "1"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: ClipFiles(out / "ben").stamp("train.attempt").is_file() and states(out)["anna"] == "done")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert states(out) == {"wall": "failed", "anna": "done", "ben": "waiting"}
    finished = {path: path.read_bytes() for path in out.glob("anna/stages/*.json")}
    avatar = (out / "anna" / "anna.effigy").stat().st_mtime_ns

    assert main(["batch", str(folder / "shots.csv")]) == 2
    assert [job for job, _ in jobs.started] == ["wall capture", "ben train"]
    assert {path: path.read_bytes() for path in out.glob("anna/stages/*.json")} == finished
    assert (out / "anna" / "anna.effigy").stat().st_mtime_ns == avatar
    printed = capsys.readouterr()
    assert "No face" in printed.out and printed.err.startswith("1 of 3 clips are not done")
    rows = {row["clip"]: row for row in csv.DictReader((out / "batch.csv").read_text("utf-8").splitlines())}
    assert rows["ben"]["state"] == "done" and rows["ben"]["tracked"] == "10" and float(rows["ben"]["megabytes"]) > 0.1
    assert rows["wall"]["state"] == "failed" and "No face" in rows["wall"]["reason"]


@pytest.mark.skipif(os.name != "posix", reason="sends what a terminal sends on Ctrl-C")
def test_ctrl_c_ends_a_batch_and_its_stage_with_one_sentence(folder):
    (folder / "shots.csv").write_text("name,capture,minutes,evaluate\nanna,ball.capture,9,no\nben,ball.capture,9,no\n")
    batch = subprocess.Popen(
        [sys.executable, "-m", "backend", "batch", "shots.csv"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: ClipFiles(folder / "shots" / "anna").stamp("train.attempt").is_file())
    os.killpg(batch.pid, signal.SIGINT)
    _, errors = batch.communicate(timeout=90)
    assert batch.returncode == 130
    assert errors == "Stopped by the user; what was finished is kept, and the same command goes on from there.\n"
    assert states(folder / "shots") == {"anna": "stopped", "ben": "stopped"}
    assert not list((folder / "shots").glob(".batch-*"))


HOLD = """
import sys, time
from pathlib import Path
from backend.service.batch.witness import witness_in
with witness_in(Path(sys.argv[1]), "0" * 16):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_batch_in_the_same_folder_is_refused_until_the_first_has_ended_or_was_killed(tmp_path):
    (tmp_path / ".batch-notes").write_text("mine")
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        refusal = (
            "Another batch is working in .*process .*: wait until it has ended, or choose another folder with --out"
        )
        for name in ("1", "f"):
            with pytest.raises(EffigyError, match=refusal), witness_in(tmp_path, name * 16):
                pass
        assert {path.name for path in tmp_path.iterdir()} == {
            f".batch-{'0' * 16}",
            ".batch-notes",
            ".batch.csv.lock",
        }
    finally:
        first.kill()
        first.wait()
    with witness_in(tmp_path, "2" * 16) as witness:
        assert witness.is_file() and not (tmp_path / f".batch-{'0' * 16}").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".batch-notes"]


class StopInTraining(Progress):
    """Asks to stop once the only clip's training has made a step."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def cancelled(self) -> bool:
        return "Training" in self._jobs.shown


def test_a_stopped_training_goes_on_from_its_checkpoint(folder, jobs):
    (folder / "shots.csv").write_text("name,capture,minutes\nanna,ball.capture,0.05\n")
    clips, out = read_sheet(folder / "shots.csv"), folder / "out"
    with pytest.raises(Cancelled, match="the same command goes on from there"):
        run_clips(clips, out, None, None, StopInTraining(jobs))
    files = ClipFiles(out / "anna")
    assert states(out) == {"anna": "stopped"} and files.checkpoint.is_file() and not files.avatar.exists()
    result = run_clips(clips, out, None, None, SILENT)
    assert jobs.started == [
        ("anna train", False),
        ("anna train", True),
        ("anna evaluate", False),
    ]
    assert result.failed == 0 and result.rows[0].psnr > 15 and not files.checkpoint.exists()


# --- one stage, without its work


class ScriptedJob:
    """Stands for the process of a stage: it makes the stage's files at once and ends with the event `last`."""

    last: JobEvent | None = None

    def __init__(self, kind, params, channel=None, environment=None):
        self.kind, self.params, self.environment = kind, params, environment
        ScriptedJob.started.append(self)

    def events(self):
        if self.kind == "train" and not self.last:
            Path(self.params["avatar"]).write_bytes(os.urandom(1000))
        yield self.last or JobEvent(DONE, {"result": {}})

    def stop(self):
        pass

    started: list[ScriptedJob]


@pytest.fixture
def scripted(monkeypatch) -> type[ScriptedJob]:
    ScriptedJob.started, ScriptedJob.last = [], None
    monkeypatch.setattr(stage_run, "JobProcess", ScriptedJob)
    return ScriptedJob


def order_for(folder: Path, stage: str = "train", **columns: Any) -> StageOrder:
    clip = Clip(**{"name": "anna", "capture": folder / "ball.capture"} | columns)
    (folder / "witness").touch()
    return StageOrder("a batch", clip, folder / "out" / "anna", stage, folder / "witness")


BEFORE = StageOutcome("track", FINISHED, run="first")


def run(order: StageOrder, before: StageOutcome = BEFORE) -> StageOutcome:
    return run_stage(order, before, lambda _: None, threads=3)


def test_a_stage_is_done_again_when_its_settings_its_inputs_or_its_files_change(tmp_path, scripted):
    order = order_for(tmp_path)
    done = run(order)
    assert done.state == FINISHED and done.figures == {"megabytes": 0.001}
    assert run(order) == done and len(scripted.started) == 1
    assert run(order_for(tmp_path, preset="full")).run != done.run and len(scripted.started) == 2
    again = run(order_for(tmp_path, preset="full"), replace(BEFORE, run="second"))
    assert again.state == FINISHED and len(scripted.started) == 3
    ClipFiles(order.folder).avatar.write_bytes(b"half")
    run(order_for(tmp_path, preset="full"), replace(BEFORE, run="second"))
    assert len(scripted.started) == 4 and ClipFiles(order.folder).avatar.stat().st_size == 1000


def test_a_capture_is_made_again_when_its_footage_changes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(stage_run, "find_stamp", lambda path, key, outputs: asked.append(key))
    monkeypatch.setattr(stage_run, "_carry_out", lambda *_: JobEvent(CANCELLED, {}))
    video = tmp_path / "anna.mp4"
    for content in (b"one", b"two", b"two"):
        video.write_bytes(content)
        order = order_for(tmp_path, "capture", capture=None, footage=video)
        assert run(order, StageOutcome("", FINISHED)).state == STOPPED
    assert asked[0] != asked[1] == asked[2]


def test_a_damaged_stamp_is_no_stamp(tmp_path, scripted):
    order = order_for(tmp_path)
    for content in ("", "[]", "{}", '{"schema": 1, "key": 3}', "\0"):
        run(order)
        ClipFiles(order.folder).stamp("train").write_text(content)
    assert run(order).state == FINISHED and len(scripted.started) == 6


def test_a_stamp_of_a_newer_version_is_left_alone(tmp_path, scripted):
    order = order_for(tmp_path)
    run(order)
    stamp = ClipFiles(order.folder).stamp("train")
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"schema": 99}))
    outcome = run(order)
    assert outcome.state == FAILED_STATE and "newer Effigy" in outcome.reason and len(scripted.started) == 1


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path, scripted):
    scripted.last = JobEvent(CANCELLED, {})
    order = order_for(tmp_path)
    assert run(order).state == STOPPED
    checkpoint = ClipFiles(order.folder).checkpoint
    checkpoint.touch()
    run(order)
    assert scripted.started[-1].params["resume"] and checkpoint.exists()
    run(order_for(tmp_path, minutes=3))
    assert "resume" not in scripted.started[-1].params and not checkpoint.exists()


def test_a_checkpoint_that_cannot_be_continued_costs_a_start_and_not_the_clip(tmp_path, scripted):
    order = order_for(tmp_path)
    scripted.last = JobEvent.with_sentence(FAILED, "The checkpoint is damaged.")
    run(order)
    ClipFiles(order.folder).checkpoint.touch()
    assert run(order).state == FAILED_STATE
    assert [bool(job.params.get("resume")) for job in scripted.started] == [False, True, False]


def test_a_stage_after_a_failed_one_is_not_begun(tmp_path, scripted):
    failed = StageOutcome("track", FAILED_STATE, "No face.")
    assert run(order_for(tmp_path), failed) == failed and not scripted.started


def test_a_stage_gets_its_share_of_threads(tmp_path, scripted, monkeypatch):
    run(order_for(tmp_path))
    environment = scripted.started[0].environment
    assert {environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"3"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert core_count() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= core_count() <= (os.cpu_count() or 1)


def test_a_machine_that_does_not_see_the_batch_s_folder_says_so(tmp_path, scripted):
    order = order_for(tmp_path)
    order.witness.unlink()
    outcome = run(order)
    assert outcome.state == FAILED_STATE and "does not see the folder" in outcome.reason and not scripted.started


@pytest.mark.parametrize("part", ["", "evaluation", "anna.capture", "stages"])
def test_nothing_is_written_through_a_link_out_of_the_batch_s_folder(tmp_path, scripted, part):
    order = order_for(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = order.folder / part if part else order.folder
    link.parent.mkdir(parents=True)
    try:
        link.symlink_to(elsewhere, target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    outcome = run(order)
    assert outcome.state == FAILED_STATE and "is a link to another place" in outcome.reason
    assert not list(elsewhere.iterdir()) and not scripted.started


def test_a_lost_scheduler_and_lost_machines_are_told_in_words():
    class KilledWorker(Exception):
        pass

    class Lost(Future):
        def result(self, timeout=None):
            raise self.error

    told = []
    for error in (KilledWorker("x"), CancelledError(), ValueError("a\n b")):
        lost = Lost()
        lost.error = error
        outcome = _outcome_of(lost)
        assert outcome.state == FAILED_STATE
        told.append(outcome.reason)
    assert "machine" in told[0] and "scheduler went away" in told[1] and "defect in Effigy (ValueError: a b)" in told[2]


def test_an_unforeseen_error_stops_the_stages_that_run(monkeypatch):
    stopped = []
    monkeypatch.setattr(local, "stop_batch", stopped.append)
    with pytest.raises(ZeroDivisionError), local.LocalMachine("a batch", 1, lambda _: None, uses_gpu=False):
        raise ZeroDivisionError
    assert stopped == ["a batch"]


# --- how much at once, and how long


def test_clips_at_once_follow_cores_and_memory(monkeypatch):
    for cores, memory, expected in (
        (2, 64e9, 1),
        (16, 64e9, 4),
        (64, 64e9, 10),
        (64, 7e9, 4),
        (64, 1e9, 1),
        (64, None, 10),
    ):
        monkeypatch.setattr(local, "core_count", lambda cores=cores: cores)
        monkeypatch.setattr(local, "available_memory", lambda memory=memory: memory)
        assert local.clips_at_once(10) == expected


def test_a_gpu_trains_one_clip_at_a_time(monkeypatch):
    monkeypatch.setattr(local, "_count_gpus", lambda: 2)
    machine = local.LocalMachine("a batch", 4, lambda _: None, uses_gpu=True)
    clip = Clip(name="anna", footage=Path("anna.mp4"))
    order = StageOrder("a batch", clip, Path("anna"), "train", Path("witness"))
    with machine._gpu_for(order) as first, machine._gpu_for(order) as second:
        assert {first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]} == {"0", "1"}
        assert machine._gpus.empty()
        with machine._gpu_for(replace(order, clip=replace(clip, device="cpu"))) as third:
            assert third == {}
    assert machine._gpus.qsize() == 2


def report(clip: str, batch_stage: str, **rest: Any) -> dict[str, Any]:
    return {"clip": clip, "batch_stage": batch_stage, **rest}


def test_the_time_left_is_not_stated_before_it_is_known_and_then_follows_what_was_measured():
    now = [0.0]
    clips = [Clip(name=name, footage=Path("x.mp4"), evaluate=False) for name in ("anna", "ben")]
    overview = Overview(clips, lambda: now[0])
    assert overview.seconds_left(1) is None and overview.share is None and "not known yet" in overview.sentence(1)
    for stage, seconds in (("capture", 10.0), ("track", 50.0)):
        overview.report(report("anna", stage))
        now[0] += seconds
        overview.report(report("anna", stage, state=FINISHED, seconds=seconds, figures={"frames": 100}))
    overview.report(report("anna", "train"))
    assert overview.seconds_left(1) is None
    now[0] += 20
    overview.report(report("anna", "train", stage="Warming up", done=9, total=10, eta=2.0))
    assert overview.seconds_left(1) is None, "the end of the warm-up is not the end of the training"
    overview.report(report("anna", "train", stage="Training", done=1, total=10, eta=100.0))
    # 100 s of anna's training are left; ben needs 10 + 50 for as many frames, and 20 + 100 for the same preset.
    assert overview.seconds_left(1) == pytest.approx(100 + 180)
    assert overview.seconds_left(2) == pytest.approx(180), "one clip cannot be shared by two machines"
    assert overview.share == pytest.approx(80 / (80 + 280)), "of 10 + 50 + 20 s that are done"
    assert overview.sentence(1) == "0 of 2 clips done, anna: training the avatar, about 5 minutes left"
    now[0] += 1e6
    assert overview.share == 0.99, "a stage that takes longer than expected is not done"
    overview.end("anna")
    overview.end("ben")
    assert overview.share == 1 and overview.sentence(1) == "2 of 2 clips done"


def test_work_that_a_lost_machine_had_begun_counts_from_its_new_beginning():
    now = [0.0]
    overview = Overview([Clip(name="anna", minutes=2.0, evaluate=False)], lambda: now[0])
    for stage in ("capture", "track"):
        overview.report(report("anna", stage, state=FINISHED, seconds=1.0, figures={"frames": 9}))
    overview.report(report("anna", "train"))
    now[0] = 90.0
    overview.report(report("anna", "train", stage="Training", done=9, total=10, eta=30.0))
    assert overview.seconds_left(1) == pytest.approx(30)
    overview.report(report("anna", "train"))
    assert overview.seconds_left(1) == pytest.approx(120)


def test_the_time_left_is_told_as_a_person_would():
    told = {seconds: time_left_in_words(seconds) for seconds in (5, 119, 3600, 3 * 3600 + 1700)}
    assert list(told.values()) == [
        "about a minute left",
        "about 2 minutes left",
        "about 60 minutes left",
        "about 3.5 hours left",
    ]


def test_a_table_that_a_spreadsheet_opens_keeps_every_figure(tmp_path):
    clip = Clip(name="Anna, “the 2nd”")
    outcome = StageOutcome("evaluate", FINISHED, seconds=90, figures={"frames": 9, "tracked": 8, "psnr": 27.1234567})
    table.write_table(tmp_path, [table.row_of(clip, outcome), table.row_of(Clip(name="ben"), None)])
    first, second = csv.DictReader((tmp_path / "batch.csv").read_text("utf-8").splitlines())
    assert first["clip"] == clip.name and float(first["minutes"]) == 1.5 and float(first["psnr"]) == 27.1234567
    assert second["state"] == "waiting" and second["psnr"] == ""


def test_no_text_of_the_table_is_calculated_by_a_spreadsheet(tmp_path, capsys):
    (tmp_path / "=HYPERLINK(1).mp4").write_bytes(b"#EXTM3U")
    (tmp_path / "shots.csv").write_text("name,footage\nanna,=HYPERLINK(1).mp4\n")
    assert main(["batch", str(tmp_path / "shots.csv")]) == 2
    (row,) = csv.DictReader((tmp_path / "shots" / "batch.csv").read_text("utf-8").splitlines())
    assert row["reason"].startswith("'=HYPERLINK(1).mp4 is a list")
    (row,) = json.loads((tmp_path / "shots" / "batch.json").read_text("utf-8"))["clips"]
    assert row["reason"].startswith("=HYPERLINK(1).mp4 is a list")


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "anna.mp4").touch()
    (tmp_path / "shots.csv").write_text("footage\nanna.mp4\n")
    assert main(["batch", str(tmp_path / "shots.csv"), "--out", str(tmp_path / "anna.mp4" / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err
