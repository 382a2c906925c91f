"""The client's half of the protocol without a process: messages become dataclasses, and events change a job."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from blender_addon.worker.arrays import COPY_BELOW, put_arrays, take_arrays
from blender_addon.worker.jobs import CANCELLED, DONE, FAILED, RUNNING, STARTING, STOPPING, Job
from blender_addon.worker.messages import (
    Answer,
    JobDone,
    JobFailed,
    JobMessage,
    JobNotification,
    JobPreview,
    JobProgress,
    WorkerInfo,
    from_message,
)


def test_requests_carry_up_to_1024_numbers_as_lists_and_more_as_base64() -> None:
    few, many = put_arrays({"few": np.arange(1024), "many": np.arange(1025)}).values()
    assert few == list(range(1024))
    assert many["$array"]["shape"] == [1025] and many["$array"]["dtype"] == "int64"
    assert put_arrays((np.float32(0.5), Path("/a/b"), {3: None}, "text")) == [0.5, "/a/b", {"3": None}, "text"]


@pytest.mark.parametrize("size", [16, COPY_BELOW - 8, COPY_BELOW])
def test_an_array_file_is_gone_when_its_array_has_arrived(size: int, tmp_path: Path) -> None:
    array = np.arange(size // 4, dtype=np.float32)
    array.tofile(tmp_path / "array")
    described = {"file": str(tmp_path / "array"), "dtype": "float32", "shape": [2, size // 8]}
    (taken,) = take_arrays([{"$array": described}])
    assert np.array_equal(taken, array.reshape(2, -1)) and type(taken) is np.ndarray
    assert not list(tmp_path.iterdir())
    # Large arrays are mapped, so that nothing is copied.
    assert isinstance(taken.base, np.memmap) == (size >= COPY_BELOW)


def test_an_array_file_of_the_wrong_size_is_deleted_and_refused(tmp_path: Path) -> None:
    np.zeros(3, np.float32).tofile(tmp_path / "array")
    with pytest.raises(ValueError):
        take_arrays({"$array": {"file": str(tmp_path / "array"), "dtype": "float32", "shape": [4]}})
    assert not list(tmp_path.iterdir())


def test_a_worker_on_another_machine_may_not_name_a_file(tmp_path: Path) -> None:
    np.zeros(3, np.float32).tofile(tmp_path / "array")
    description = {"dtype": "float32", "shape": [3]}
    with pytest.raises(ValueError, match="from a worker on another machine"):
        take_arrays({"a": [{"$array": description | {"file": str(tmp_path / "array")}}]}, files=False)
    assert (tmp_path / "array").exists()
    data = put_arrays({"a": [{"$array": description | {"data": "AACAPwAAAEAAAEBA"}}]})
    assert take_arrays(data, files=False)["a"][0].tolist() == [1.0, 2.0, 3.0]


def test_what_is_no_description_of_an_array_stays_as_it_is() -> None:
    message = {"$array": "a text", "list": [1, 2], "nested": [{"$array": [1]}], "none": None}
    assert take_arrays(json.loads(json.dumps(message))) == message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"id": 3, "result": {"a": 1}}, Answer(3, {"a": 1})),
        (
            {"id": 4, "error": {"code": -1, "message": "No.", "data": "trace"}},
            Answer(4, error="No.", traceback="trace"),
        ),
        ({"id": 4, "error": {"code": -1, "message": "No."}}, Answer(4, error="No.")),
        (
            {"method": "job.progress", "params": {"job": "1", "stage": "Training", "done": 2, "total": 9}},
            JobNotification("1", JobProgress("Training", 2, 9)),
        ),
        (
            {
                "method": "job.progress",
                "params": {
                    "job": "1",
                    "stage": "s",
                    "done": 2,
                    "total": 9,
                    "eta": 3.5,
                    "rate": 2.0,
                    "metrics": {"psnr": 20.0},
                },
            },
            JobNotification("1", JobProgress("s", 2, 9, 3.5, 2.0, {"psnr": 20.0})),
        ),
        ({"method": "job.preview", "params": {"job": "1", "image": 7}}, JobNotification("1", JobPreview(7))),
        ({"method": "job.message", "params": {"job": "1", "text": "Hm."}}, JobNotification("1", JobMessage("Hm."))),
        ({"method": "job.done", "params": {"job": "1", "result": {}}}, JobNotification("1", JobDone({}))),
        (
            {"method": "job.failed", "params": {"job": "1", "message": "No."}},
            JobNotification("1", JobFailed("No.", cancelled=False)),
        ),
        (
            {"method": "job.cancelled", "params": {"job": "1", "message": "Stopped."}},
            JobNotification("1", JobFailed("Stopped.", cancelled=True)),
        ),
        ({"method": "job.sung", "params": {"job": "1"}}, None),
        ({"jsonrpc": "2.0"}, None),
    ],
)
def test_messages_become_what_they_mean(message: dict, expected: object) -> None:
    assert from_message(message) == expected


@pytest.mark.parametrize(
    "message", [{"id": 1}, {"method": "job.message"}, {"method": "job.message", "params": {"text": ""}}]
)
def test_a_message_that_breaks_the_protocol_is_an_error(message: dict) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_message(message)


def test_the_workers_description_is_read_with_and_without_folders() -> None:
    assert WorkerInfo.from_answer({"schema": "2", "folders": ["/a", "/b"]}) == WorkerInfo(2, ("/a", "/b"))
    assert WorkerInfo.from_answer({"schema": 1}) == WorkerInfo(1, ())


class Watched:
    """A job, what it asked to be cancelled, and the states at which its change was reported."""

    def __init__(self) -> None:
        self.cancelled: list[Job] = []
        self.seen: list[str] = []
        self.job = Job("train", {"a": 1}, self.cancelled.append)
        self.job.on_change = lambda job: self.seen.append(job.state)


def test_a_job_goes_from_its_start_to_its_result() -> None:
    watched = Watched()
    job = watched.job
    assert (job.state, job.stage, job.fraction, job.finished) == (STARTING, "Starting", 0.0, False)
    job.on_started("7")
    assert (job.name, job.state) == ("7", RUNNING)
    job.on_event(JobProgress("Training", 3, 12, 9.0, 0.5, {"psnr": 20.0}))
    assert (job.stage, job.done, job.total, job.fraction, job.eta, job.rate) == ("Training", 3, 12, 0.25, 9.0, 0.5)
    job.on_event(JobPreview(np.ones((2, 2, 3))))
    job.on_event(JobPreview(np.zeros((2, 2, 3))))
    assert job.preview_count == 2 and not job.preview.any()
    job.on_event(JobMessage("A sentence."))
    assert job.messages == ["A sentence."]
    job.on_event(JobProgress("Training", 13, 12))
    assert job.fraction == 1.0
    job.on_event(JobDone({"avatar": "/a"}))
    assert (job.state, job.result, job.eta, job.error, job.finished) == (DONE, {"avatar": "/a"}, None, None, True)
    assert watched.seen == [*[RUNNING] * 6, DONE]
    # What arrives or is asked afterwards changes nothing.
    job.on_event(JobMessage("Late."))
    job.end(FAILED, "Late.")
    job.cancel()
    assert job.messages == ["A sentence."] and job.state == DONE and job.error is None
    assert not watched.cancelled and len(watched.seen) == 7


@pytest.mark.parametrize(("cancelled", "state"), [(True, CANCELLED), (False, FAILED)])
def test_a_job_ends_with_the_workers_sentence(cancelled: bool, state: str) -> None:
    watched = Watched()
    watched.job.on_event(JobProgress("Training", 3, 12, 9.0))
    watched.job.on_event(JobFailed("Why.", cancelled))
    assert (watched.job.state, watched.job.error, watched.job.eta) == (state, "Why.", None)
    assert watched.seen == [STARTING, state]


def test_a_job_that_was_cancelled_before_it_had_a_name_stays_stopping() -> None:
    watched = Watched()
    watched.job.cancel()
    assert watched.job.state == STOPPING and watched.cancelled == [watched.job]
    watched.job.on_started("7")
    assert (watched.job.state, watched.job.name) == (STOPPING, "7")


def test_a_curve_begins_anew_with_each_stage_and_is_thinned_when_it_is_long() -> None:
    job = Watched().job
    job.on_event(JobProgress("Warming up", 1, 9, metrics={"psnr": 5.0}))
    job.on_event(JobProgress("Training", 0, 601))
    assert job.history == []
    for done in range(1, 601):
        job.on_event(JobProgress("Training", done, 601, metrics={"psnr": float(done)}))
    assert [point[0] for point in job.history] == list(range(1, 601))
    job.on_event(JobProgress("Training", 601, 601, metrics={"psnr": 0.0}))
    # The first and the last point stay, and every second one between them goes.
    assert [point[0] for point in job.history] == [*range(1, 601, 2), 601]
    assert job.history[1] == (3, {"psnr": 3.0})
