"""The parts of a batch without its work: attempts, stamps, settings, reports, the time left, and the table's rows."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_capture import make_small_capture

import backend
from backend.formats.capture import load_capture
from backend.formats.track import load_track, save_track
from backend.service.batch import local, memory, overview, stage_run
from backend.service.batch.attempt import Attempt
from backend.service.batch.finished_capture import take_over
from backend.service.batch.overview import SECONDS_PER_FRAME, Overview, time_left_in_words
from backend.service.batch.sheet import Clip
from backend.service.batch.stage_run import FAILED_STATE, FINISHED, STOPPED, StageOrder, StageOutcome, run_stage
from backend.service.batch.stages import STAGES, ClipFiles, parameters_of, settings_of, stages_of
from backend.service.batch.stamps import find_stamp, hash_input, key_of, new_stamp, save_stamp
from backend.service.batch.table import row_of, write_table
from backend.service.job_messages import CANCELLED, DONE, FAILED, MESSAGE, PREVIEW, PROGRESS, JobEvent

CLIP = Clip(name="anna", footage=Path("/films/anna.mp4"))
FILES = ClipFiles(Path("/out/anna"))

# --- attempts and stamps


def test_an_attempt_counts_the_seconds_of_all_attempts_with_the_same_inputs(tmp_path: Path) -> None:
    note = tmp_path / "train.attempt"
    first = Attempt(note, "key")
    assert first.seconds == 0 and not first.is_continued
    # A batch that is killed now leaves the note of its attempt.
    assert Attempt(note, "key").is_continued
    assert first.add(2.5) == 2.5 and first.add(1.5) == 4.0
    again = Attempt(note, "key")
    assert again.is_continued and again.add(1.0) == 5.0
    other = Attempt(note, "another key")
    assert not other.is_continued and other.seconds == 0
    other.forget()
    assert not note.exists() and not Attempt(note, "another key").is_continued


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": "key"}', '{"key": "key", "seconds": []}', "\xff"])
def test_a_damaged_note_begins_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "note").write_text(content, "latin-1")
    attempt = Attempt(tmp_path / "note", "key")
    assert attempt.seconds == 0 and not attempt.is_continued and Attempt(tmp_path / "note", "key").is_continued


def test_a_checkpoint_is_continued_by_an_attempt_that_follows_another(tmp_path: Path) -> None:
    files = ClipFiles(tmp_path)
    note = tmp_path / "note"
    assert not Attempt(note, "key").may_resume(files)
    files.checkpoint.touch()
    assert Attempt(note, "key").may_resume(files) and files.checkpoint.exists()
    assert not Attempt(note, "another").may_resume(files) and not files.checkpoint.exists()


def test_a_stamp_knows_the_count_and_the_size_of_files_and_of_folders(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for index in range(3):
        (tmp_path / "frames" / str(index)).write_bytes(b"x" * (10 + index))
    (tmp_path / "track.npz").write_bytes(b"y" * 7)
    outputs = (tmp_path / "frames", tmp_path / "track.npz", tmp_path / "gone")
    stamp = new_stamp("key", 2.5, {"frames": 3}, outputs)
    assert stamp.outputs == {"frames": [3, 33], "track.npz": [1, 7], "gone": [0, 0]}
    assert (stamp.key, stamp.seconds, stamp.figures, len(stamp.run)) == ("key", 2.5, {"frames": 3}, 16)
    assert stamp.run != new_stamp("key", 2.5, {}, ()).run
    path = tmp_path / "stages" / "track.json"
    save_stamp(path, stamp)
    assert find_stamp(path, "key", outputs) == stamp
    assert find_stamp(path, "another", outputs) is None
    (tmp_path / "frames" / "3").touch()
    assert find_stamp(path, "key", outputs) is None


def test_a_key_follows_the_stage_its_settings_and_its_inputs(tmp_path: Path) -> None:
    same = key_of("track", {"a": 1, "b": None}, {"x": "1", "y": None})
    assert same == key_of("track", {"b": None, "a": 1}, {"y": None, "x": "1"}) and len(same) == 64
    others = [
        key_of("train", {"a": 1, "b": None}, {"x": "1", "y": None}),
        key_of("track", {"a": 2, "b": None}, {"x": "1", "y": None}),
        key_of("track", {"a": 1, "b": None}, {"x": "2", "y": None}),
    ]
    assert len({same, *others}) == 4
    (tmp_path / "abc").write_bytes(b"abc")
    assert hash_input(None) is None
    assert hash_input(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- stages


def test_each_stage_has_its_files_its_settings_and_its_parameters() -> None:
    assert stages_of(CLIP) == STAGES == ("capture", "track", "train", "evaluate")
    assert stages_of(replace(CLIP, evaluate=False)) == ("capture", "track", "train")
    capture, avatar = "/out/anna/anna.capture", "/out/anna/anna.effigy"
    assert [str(path) for path in FILES.outputs("capture")] == [
        f"{capture}/{name}" for name in ("capture.json", "landmarks.npz", "frames", "mattes")
    ]
    assert [str(path) for path in FILES.outputs("track")] == [f"{capture}/track.npz", f"{capture}/head_mattes"]
    assert FILES.outputs("train") == (Path(avatar),) and FILES.checkpoint == Path(f"{avatar}.checkpoint")
    assert [path.name for path in FILES.outputs("evaluate")] == ["metrics.json", "sheet.png", "frames"]
    assert FILES.stamp("track") == Path("/out/anna/stages/track.json")
    sized = replace(CLIP, size=256, start=1.0, end=2.0, head=Path("/head.npz"), preset="full", minutes=3.0)
    assert settings_of(CLIP, "capture") == {"size": 512, "start": None, "end": None}
    assert settings_of(sized, "capture") == {"size": 256, "start": 1.0, "end": 2.0}
    assert settings_of(CLIP, "track") == {"head": False} and settings_of(sized, "track") == {"head": True}
    assert settings_of(sized, "train") == {"preset": "full", "minutes": 3.0}
    assert settings_of(sized, "evaluate") == {}
    assert parameters_of(sized, FILES, "capture") == {
        "video": "/films/anna.mp4",
        "capture": capture,
        "size": 256,
        "start": 1.0,
        "end": 2.0,
    }
    assert parameters_of(CLIP, FILES, "track") == {"capture": capture, "head": None}
    assert parameters_of(sized, FILES, "track") == {"capture": capture, "head": "/head.npz"}
    assert parameters_of(replace(sized, device="cpu"), FILES, "train") == {
        "capture": capture,
        "avatar": avatar,
        "device": "cpu",
        "preset": "full",
        "minutes": 3.0,
    }
    out = "/out/anna/evaluation"
    assert parameters_of(CLIP, FILES, "evaluate") == {"avatar": avatar, "capture": capture, "out": out}
    for ask in (FILES.outputs, lambda stage: settings_of(CLIP, stage), lambda stage: parameters_of(CLIP, FILES, stage)):
        with pytest.raises(ValueError, match="sing"):
            ask("sing")


class Script:
    """Stands for the process of a stage, whose events the test gives."""

    events_given: tuple[JobEvent, ...] = ()
    stopped = 0

    def __init__(self, kind: str, params: dict[str, Any], **options: Any) -> None:
        Script.started.append((kind, params, options))

    def events(self) -> Any:
        if self.started[-1][0] == "train":
            Path(self.started[-1][1]["avatar"]).write_bytes(b"x" * 2_500_000)
        yield from Script.events_given

    def stop(self) -> None:
        Script.stopped += 1

    started: list[tuple[str, dict[str, Any], dict[str, Any]]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> type[Script]:
    Script.started, Script.stopped = [], 0
    Script.events_given = (JobEvent(DONE, {"result": {"frames": 9, "sure": 7}}),)
    monkeypatch.setattr(stage_run, "JobProcess", Script)
    monkeypatch.setattr(stage_run, "_running", stage_run._Running())
    return Script


def order_for(folder: Path, stage: str, clip: Clip = CLIP) -> StageOrder:
    (folder / "witness").touch()
    return StageOrder("a batch", clip, folder / "out" / "anna", stage, folder / "witness")


@pytest.mark.parametrize(("stage", "figures"), [("track", {"frames": 9, "tracked": 7}), ("train", {"megabytes": 2.5})])
def test_a_stage_reports_its_beginning_its_progress_and_its_end(
    tmp_path: Path, script: type[Script], stage: str, figures: dict[str, Any]
) -> None:
    told: list[dict[str, Any]] = []
    progress = {"stage": "Training", "done": 1, "total": 2, "eta": 3.0}
    script.events_given = (
        JobEvent(PROGRESS, progress),
        JobEvent(PREVIEW, {"image": 1}),
        JobEvent(MESSAGE, {"text": "Hm."}),
        *script.events_given,
    )
    before = StageOutcome("before", FINISHED, run="first", seconds=50.0, figures={"psnr": 1})
    outcome = run_stage(order_for(tmp_path, stage), before, told.append, 2, {"CUDA_VISIBLE_DEVICES": "1"})
    head = {"clip": "anna", "batch_stage": stage}
    assert told[:3] == [head, head | progress, head | {"text": "Hm."}]
    assert told[3:] == [head | {"state": FINISHED, "seconds": outcome.stage_seconds, "figures": {"psnr": 1} | figures}]
    assert outcome.stage == stage and outcome.figures == {"psnr": 1} | figures and len(outcome.run) == 16
    assert outcome.seconds == pytest.approx(50.0 + outcome.stage_seconds) and 0 <= outcome.stage_seconds < 20
    ((kind, _, options),) = script.started
    assert kind == stage and options["environment"]["CUDA_VISIBLE_DEVICES"] == "1"
    assert options["environment"]["OMP_NUM_THREADS"] == "2"
    assert not ClipFiles(tmp_path / "out" / "anna").stamp(f"{stage}.attempt").exists()


def test_the_figures_of_an_evaluation_are_those_of_its_file(tmp_path: Path, script: type[Script]) -> None:
    order = order_for(tmp_path, "evaluate")
    files = ClipFiles(order.folder)
    files.evaluation.mkdir(parents=True)
    (files.evaluation / "metrics.json").write_text(json.dumps({"psnr": 30.5, "psnr_head": 28.5, "more": 1}))
    outcome = run_stage(order, StageOutcome("train", FINISHED), lambda _: None, 1)
    assert outcome.figures == {"psnr": 30.5, "psnr_head": 28.5}


@pytest.mark.parametrize(
    ("event", "state", "reason"),
    [
        (JobEvent.with_sentence(FAILED, "No face."), FAILED_STATE, "No face."),
        (JobEvent.with_sentence(CANCELLED, "Stopped."), STOPPED, ""),
    ],
)
def test_a_stage_that_does_not_finish_leaves_its_attempt_and_no_stamp(
    tmp_path: Path, script: type[Script], event: JobEvent, state: str, reason: str
) -> None:
    script.events_given = (event,)
    told: list[dict[str, Any]] = []
    before = StageOutcome("track", FINISHED, run="first", seconds=5.0, figures={"frames": 9})
    outcome = run_stage(order_for(tmp_path, "track"), before, told.append, 1)
    assert (outcome.state, outcome.reason, outcome.run, outcome.figures) == (state, reason, "", {"frames": 9})
    assert outcome.seconds == pytest.approx(5.0 + outcome.stage_seconds) and told[-1]["state"] == state
    files = ClipFiles(tmp_path / "out" / "anna")
    assert files.stamp("track.attempt").is_file() and not files.stamp("track").exists()


def test_a_batch_that_was_stopped_begins_no_stage_and_takes_no_failure_for_one(
    tmp_path: Path, script: type[Script]
) -> None:
    order = order_for(tmp_path, "track")
    process = Script("track", {})
    running = stage_run._running
    with running.kept(process, "a batch"), running.kept(Script("track", {}), "another batch"):
        stage_run.stop_batch("a batch")
        assert script.stopped == 1
    stage_run.stop_batch("a batch")
    assert script.stopped == 1, "a process that has ended is not asked"
    with running.kept(process, "a batch"):
        assert script.stopped == 2, "one that was being started is"
    script.started.clear()
    outcome = run_stage(order, StageOutcome("capture", FINISHED, figures={"frames": 9}), lambda _: None, 1)
    assert outcome.state == STOPPED and outcome.stage == "track" and not script.started


def test_a_failure_that_a_stop_causes_is_a_stop(tmp_path: Path, script: type[Script]) -> None:
    class Stopping(Script):
        def events(self) -> Any:
            stage_run.stop_batch("a batch")
            yield JobEvent.with_sentence(FAILED, "The pipe broke.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_run, "JobProcess", Stopping)
        outcome = run_stage(order_for(tmp_path, "track"), StageOutcome("capture", FINISHED), lambda _: None, 1)
    assert (outcome.state, outcome.reason) == (STOPPED, "")


def test_an_error_of_the_system_fails_the_clip_with_a_sentence(
    tmp_path: Path, script: type[Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/out/x")

    monkeypatch.setattr(stage_run, "save_stamp", full)
    outcome = run_stage(order_for(tmp_path, "track"), StageOutcome("capture", FINISHED), lambda _: None, 1)
    assert outcome.state == FAILED_STATE and "is full" in outcome.reason


def test_a_stage_is_done_again_when_a_file_that_it_reads_has_changed(
    tmp_path: Path, script: type[Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_run, "_register_head", lambda file, count: None)
    finished_capture, head = tmp_path / "a.capture", tmp_path / "head.npz"
    finished_capture.mkdir()
    (finished_capture / "capture.json").write_text("{}")
    head.write_bytes(b"one")

    def keys(stage: str, clip: Clip, change: Path) -> list[str]:
        """The keys of the stage's inputs before and after a change of a file, and without one."""
        asked: list[str] = []
        monkeypatch.setattr(stage_run, "find_stamp", lambda path, key, outputs: asked.append(key))
        for content in (b"two", b"three", b"three"):
            change.write_bytes(content)
            script.events_given = (JobEvent.with_sentence(CANCELLED, ""),)
            monkeypatch.setattr(stage_run, "take_over", lambda *_: None)
            run_stage(order_for(tmp_path, stage, clip), StageOutcome("", FINISHED, run="x"), lambda _: None, 1)
        return asked

    by_capture, by_head = Clip(name="anna", capture=finished_capture), replace(CLIP, head=head)
    for stage, clip, change in (
        ("capture", by_capture, finished_capture / "capture.json"),
        ("capture", by_capture, finished_capture / "landmarks.npz"),
        ("capture", by_capture, finished_capture / "track.npz"),
        ("track", by_head, head),
    ):
        first, second, third = keys(stage, clip, change)
        assert first != second == third, (stage, change)
    for stage, clip, change in (("train", by_head, head), ("track", by_capture, finished_capture / "track.npz")):
        assert len(set(keys(stage, clip, change))) == 1, "what earlier stages read shows in their run"


# --- a finished capture instead of footage


def test_a_finished_capture_is_copied_with_its_track_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, track, _ = make_small_capture(tmp_path, frames=4)
    (capture.folder / "notes.txt").write_text("mine")
    (capture.folder / "frames" / "notes.txt").write_text("mine")
    save_track(replace(track, flags=np.array([0, 0, 16, 0], np.int32)), capture.folder / "track.npz")
    shutil.copytree(capture.folder / "head_mattes", capture.folder / "body_mattes")
    clip, files = Clip(name="anna", capture=capture.folder), ClipFiles(tmp_path / "out" / "anna")
    files.folder.mkdir(parents=True)
    assert take_over(CLIP, "capture", files) is None and take_over(clip, "train", files) is None
    assert take_over(clip, "track", files) is None, "there is no track yet"
    assert take_over(clip, "capture", files) == {"frames": 4}
    names = ("frames", "mattes", "head_mattes", "body_mattes")
    copied = {str(path.relative_to(files.capture)) for path in files.capture.rglob("*") if path.is_file()}
    expected = {f"{name}/{index:06d}.png" for name in names for index in range(4)}
    assert copied == expected | {"capture.json", "landmarks.npz", "track.npz"}
    assert (load_capture(files.capture).flags == capture.flags).all()
    assert load_track(files.track).frame_count == 4
    assert take_over(clip, "track", files) == {"frames": 4, "tracked": 3}
    assert take_over(replace(clip, head=Path("/head.npz")), "track", files) is None, "another head is tracked anew"


# --- how long it takes


def report(clip: str, batch_stage: str, **rest: Any) -> dict[str, Any]:
    return {"clip": clip, "batch_stage": batch_stage, **rest}


def finished(stage: str, seconds: float, frames: int, clip: str = "anna") -> dict[str, Any]:
    return report(clip, stage, state=FINISHED, seconds=seconds, figures={"frames": frames})


def test_before_anything_is_measured_the_time_of_a_stage_is_that_of_its_frames() -> None:
    now = [0.0]
    watched = Overview([replace(CLIP, minutes=2.0)], lambda: now[0])
    assert watched.seconds_left(1) is None
    watched.report(report("anna", "capture"))
    now[0] = 4.0
    watched.report(finished("capture", 4.0, 100))
    expected = 100 * (SECONDS_PER_FRAME["track"] + SECONDS_PER_FRAME["evaluate"]) + 120
    assert watched.seconds_left(1) == pytest.approx(expected)
    assert watched.share == pytest.approx(4 / (4 + expected))
    watched.report(report("anna", "track"))
    now[0] = 7.0
    assert watched.seconds_left(1) == pytest.approx(expected - 3) and watched.share == pytest.approx(7 / (4 + expected))
    now[0] = 1000.0
    assert watched.seconds_left(1) == pytest.approx(100 * SECONDS_PER_FRAME["evaluate"] + 120), "no less than nothing"


def test_later_clips_are_expected_to_take_what_earlier_ones_did() -> None:
    now = [0.0]
    clips = [replace(CLIP, name=name) for name in ("anna", "ben", "cleo")]
    watched = Overview(clips, lambda: now[0])
    for stage, seconds in zip(STAGES, (10.0, 40.0, 300.0, 20.0), strict=True):
        watched.report(finished(stage, seconds, 100))
    watched.report(finished("capture", 30.0, 300, "ben"))
    # 40 s and 20 s were for 100 frames of anna; ben has 300, and cleo the mean of both, whose capture takes 0.1 s each.
    ben, cleo = 3 * 40 + 300 + 3 * 20, 0.1 * 200 + 2 * 40 + 300 + 2 * 20
    assert watched.seconds_left(1) == pytest.approx(ben + cleo)
    assert watched.seconds_left(2) == pytest.approx(max(ben, cleo))
    assert watched.sentence(1).startswith("1 of 3 clips done, about ")
    other = Overview([clips[0], replace(clips[1], preset="full")], lambda: now[0])
    for stage, seconds in zip(STAGES, (10.0, 40.0, 300.0, 20.0), strict=True):
        other.report(finished(stage, seconds, 100))
    assert other.seconds_left(1) is None, "another preset takes another time"


def test_a_failed_clip_is_done_with_and_its_work_is_not() -> None:
    now = [0.0]
    watched = Overview([CLIP], lambda: now[0])
    watched.report(report("anna", "capture"))
    now[0] = 5.0
    watched.report(report("anna", "capture", state=FAILED_STATE, seconds=5.0, figures={}))
    assert watched.sentence(1) == "1 of 1 clips done" and watched.share == 1.0 and watched.seconds_left(1) == 0


def test_a_sentence_of_a_clip_changes_nothing_of_its_time() -> None:
    now = [0.0]
    watched = Overview([replace(CLIP, minutes=1.0, evaluate=False)], lambda: now[0])
    for stage in ("capture", "track"):
        watched.report(finished(stage, 1.0, 10))
    watched.report(report("anna", "train"))
    now[0] = 20.0
    watched.report(report("anna", "train", text="Hm."))
    watched.report(report("anna", "train", stage="Training", done=1, total=9, eta=None))
    watched.report(report("anna", "train", stage="Evaluating", done=1, total=9, eta=1.0))
    assert watched.seconds_left(1) == pytest.approx(40)


def test_three_clips_in_work_are_named_and_the_others_are_counted() -> None:
    clips = [replace(CLIP, name=f"clip {number}") for number in range(5)]
    watched = Overview(clips, lambda: 0.0)
    assert watched.sentence(0) == "No machine of the cluster is left: waiting for one"
    for number, stage in enumerate(("capture", "track", "train", "evaluate", "capture")):
        if number == 3:
            said = (
                "0 of 5 clips done, clip 0: cutting out the head; clip 1: following the face; clip 2: training the "
                "avatar, time left not known yet"
            )
            assert watched.sentence(2) == said
        watched.report(report(f"clip {number}", stage))
    assert "; clip 2: training the avatar; 2 more in progress, time" in watched.sentence(2)
    assert overview.IN_WORDS["evaluate"] == "checking the avatar"


def test_the_time_left_is_told_in_the_unit_that_fits() -> None:
    told = {
        89: "about a minute left",
        90: "about 2 minutes left",
        89.4 * 60: "about 89 minutes left",
        90 * 60: "about 1.5 hours left",
        105 * 60: "about 2 hours left",
    }
    assert {seconds: time_left_in_words(seconds) for seconds in told} == told


# --- the table, and the machine


@pytest.mark.parametrize(
    ("state", "shown"), [(FINISHED, "done"), (FAILED_STATE, "failed"), (STOPPED, "stopped"), (None, "waiting")]
)
def test_a_row_says_what_became_of_a_clip(tmp_path: Path, state: str | None, shown: str) -> None:
    figures = {"frames": 9, "tracked": 8, "psnr": 27.5, "psnr_head": 25.5, "megabytes": 3.25}
    outcome = state and StageOutcome("evaluate", state, "Why.", seconds=100.0, figures=figures)
    row = row_of(CLIP, outcome or None)
    assert row.clip == "anna" and row.state == shown
    known = (row.frames, row.tracked, row.minutes, row.psnr, row.psnr_head, row.megabytes, row.reason)
    assert known == ((9, 8, 1.67, 27.5, 25.5, 3.25, "Why.") if state else (*[None] * 6, ""))
    assert write_table(tmp_path, [row]) == tmp_path / "batch.csv"
    written = json.loads((tmp_path / "batch.json").read_text("utf-8"))
    assert written["schema"] == 1 and [each["state"] for each in written["clips"]] == [shown]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_free_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = memory.available_memory()
    assert found is not None and 1e8 < found < 64 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    told = tmp_path / "meminfo"
    monkeypatch.setattr(memory, "Path", lambda _: told)
    assert memory.available_memory() is None
    told.write_text("MemTotal: 9 kB\nMemAvailable:   2048 kB\nMemAvailable: 1 kB\n")
    assert memory.available_memory() == 2048 * 1024
    told.write_text("MemTotal: 9 kB\n")
    assert memory.available_memory() is None


@pytest.mark.parametrize(
    ("code", "printed", "count"), [(0, "a banner\n2\n", 2), (0, "0\n", 0), (1, "2\n", 0), (0, "", 0)]
)
def test_gpus_are_counted_by_a_program_that_may_fail(
    monkeypatch: pytest.MonkeyPatch, code: int, printed: str, count: int
) -> None:
    ended = SimpleNamespace(returncode=code, stdout=printed)
    monkeypatch.setattr(local.child_process, "run", lambda *_, **__: ended)
    assert local._count_gpus() == count
    machine = local.LocalMachine("a batch", 1, lambda _: None, uses_gpu=True)
    assert (machine._gpus is None) == (count == 0)
    assert local.LocalMachine("a batch", 1, lambda _: None, uses_gpu=False)._gpus is None


def test_the_cores_are_shared_among_the_clips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    threads: list[int] = []

    def stage(order: StageOrder, before: StageOutcome, told: object, count: int, environment: object) -> StageOutcome:
        threads.append(count)
        return StageOutcome(order.stage, FAILED_STATE if order.stage == "track" else FINISHED)

    monkeypatch.setattr(local, "run_stage", stage)
    monkeypatch.setattr(local, "core_count", lambda: 7)
    orders = [order_for(tmp_path, name) for name in STAGES]
    for at_once, expected in ((1, 7), (2, 3), (9, 1)):
        threads.clear()
        with local.LocalMachine("a batch", at_once, lambda _: None, uses_gpu=False) as machine:
            outcome = machine.submit(orders).result()
        assert threads == [expected] * 2 and outcome.stage == "track", "nothing is done after a stage that failed"


def test_a_machine_of_a_cluster_says_why_it_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = pytest.importorskip("backend.service.batch.machine", reason="Dask is not installed")
    witness, root = tmp_path / "witness", str(Path(__file__).resolve().parents[2])
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert machine.examine(str(witness), root, "1") == (
        f"does not see the folder {tmp_path}: it must have it under the same path"
    )
    witness.touch()
    assert machine.examine(str(witness), root, backend.__version__) is None
    wrong = machine.examine(str(witness), root, "0.0.9")
    assert wrong == f"has Effigy {backend.__version__} where this machine has 0.0.9"
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None if name == "numba" else name)
    assert str(machine.examine(str(witness), root, "1")).startswith(f"cannot import numba: it needs Effigy in {root}")
