"""The messages without a process: lines become dataclasses, odd lines are refused at both ends, events change a job."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backend.service import job_messages, messages, protocol
from blender_addon.worker import jobs, requests
from blender_addon.worker import messages as client_messages
from blender_addon.worker.array_folders import COPY_BELOW, ArrayFolders
from blender_addon.worker.arrays import put_arrays, take_arrays
from blender_addon.worker.jobs import CANCELLED, DONE, FAILED, RUNNING, STARTING, STOPPING, Job
from blender_addon.worker.messages import (
    Answer,
    JobDone,
    JobFailed,
    JobMessage,
    JobNotification,
    JobPreview,
    JobProgress,
    NoMessage,
    WholeJob,
    WorkerInfo,
    read_message,
)
from blender_addon.worker.results import IMAGE, SPLATS, check_result


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def test_requests_carry_up_to_1024_numbers_as_lists_and_more_as_base64() -> None:
    few, many = put_arrays({"few": np.arange(1024), "many": np.arange(1025)}).values()
    assert few == list(range(1024))
    assert many["$array"]["shape"] == [1025] and many["$array"]["dtype"] == "int64"
    assert put_arrays((np.float32(0.5), Path("/a/b"), {3: None}, "text")) == [0.5, "/a/b", {"3": None}, "text"]


@pytest.mark.parametrize("size", [16, COPY_BELOW - 8, COPY_BELOW])
def test_an_array_file_is_gone_when_its_array_has_arrived(size: int) -> None:
    folders = ArrayFolders()
    array = np.arange(size // 4, dtype=np.float32)
    array.tofile(Path(folders.paths[0]) / "1-1")
    described = {"file": "1-1", "dtype": "float32", "shape": [2, size // 8]}
    (taken,) = take_arrays([{"$array": described}], folders)
    assert not list(Path(folders.paths[0]).iterdir())
    folders.remove()
    assert np.array_equal(taken, array.reshape(2, -1)) and type(taken) is np.ndarray
    # Large arrays are mapped, so that nothing is copied.
    assert isinstance(taken.base, np.memmap) == (size >= COPY_BELOW)


def test_a_worker_on_another_machine_may_not_name_a_file(tmp_path: Path) -> None:
    np.zeros(3, np.float32).tofile(tmp_path / "array")
    description = {"dtype": "float32", "shape": [3]}
    for name in (str(tmp_path / "array"), "1-1"):
        with pytest.raises(ValueError, match="from a worker on another machine"):
            take_arrays({"a": [{"$array": description | {"file": name}}]}, None)
    assert (tmp_path / "array").exists()
    data = put_arrays({"a": [{"$array": description | {"data": "AACAPwAAAEAAAEBA"}}]})
    assert take_arrays(data, None)["a"][0].tolist() == [1.0, 2.0, 3.0]


def test_what_is_no_description_of_an_array_stays_as_it_is() -> None:
    message = {"$array": "a text", "list": [1, 2], "nested": [{"$array": [1]}], "none": None}
    assert take_arrays(json.loads(json.dumps(message)), None) == message


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
        (
            {
                "method": "job.progress",
                "params": {
                    "job": "1",
                    "stage": "s",
                    "done": 2,
                    "total": 9,
                    "whole": {"share": 0.25, "ahead": 0.4, "left": 12, "step": 2, "steps": 7, "title": "Shape"},
                },
            },
            JobNotification("1", JobProgress("s", 2, 9, whole=WholeJob(0.25, 0.4, 12.0, 2, 7, "Shape"))),
        ),
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
    assert read_message(line(message), None) == expected


def preview(dtype: str = "uint8", shape: tuple[int, ...] = (1, 1, 3), data: str = "AAEC") -> dict:
    image = {"$array": {"dtype": dtype, "shape": list(shape), "data": data}}
    return {"method": "job.preview", "params": {"job": "1", "image": image}}


def test_a_preview_arrives_as_an_image() -> None:
    read = read_message(line(preview()), None)
    assert isinstance(read, JobNotification) and isinstance(read.event, JobPreview)
    assert read.event.image.tolist() == [[[0, 1, 2]]]


WHOLE = {"share": 0.25, "ahead": 0.4, "left": 12.0, "step": 2, "steps": 7, "title": "Shape of the head"}


def progress(**wrong: object) -> dict:
    return {"method": "job.progress", "params": {"job": "1", "stage": "s", "done": 1, "total": 2} | wrong}


DEEP = b'{"id": 1, "result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
NO_OBJECTS = [
    b"",
    b"\n",
    b"Welcome to studio. Last login: Sun Nov 29 09:00:00 2026\n",
    b"1",
    b"null",
    b'"text"',
    b'[{"id": 1}]',
    b'{"id": 1',
    b'{"id": 1, "params": {"a": NaN}}',
    b'{"id": 1, "params": {"a": -Infinity}}',
    b'{"id": ' + b"9" * 5000 + b"}",
    b'{"id": "\xff\xfe"}',
    b"\x00" * 100,
    b"x" * 1_000_000,
    "{}".encode("utf-16"),
    DEEP,
]
"""Lines that neither end takes for a message."""
NO_IDS = ["1", None, True, 1.5, [1], {}, 10**30]


@pytest.mark.parametrize("odd", NO_OBJECTS, ids=lambda odd: repr(odd[:30]))
def test_a_line_that_is_no_object_is_refused_at_both_ends(odd: bytes) -> None:
    with pytest.raises(NoMessage):
        read_message(odd, None)
    for read in (messages.read_request, job_messages.JobEvent.from_line):
        with pytest.raises(messages.NoMessage) as refused:
            read(odd)
        assert len(str(refused.value)) <= 200
    assert len(messages.shown(odd)) < 400 and messages.shown(odd) == client_messages.shown(odd)


def test_a_message_that_is_nested_too_deep_is_refused_with_its_number_at_both_ends() -> None:
    def nested(depth: int) -> bytes:
        return b'{"id": 5, "method": "x", "params": {"a": ' + b"[" * depth + b"]" * depth + b'}, "result": 1}'

    assert messages.read_request(nested(62)).number == 5
    assert read_message(nested(62), None) == Answer(5, 1)
    with pytest.raises(messages.NoMessage, match="more than 64 deep") as refused:
        messages.read_request(nested(63))
    with pytest.raises(NoMessage, match="more than 64 deep") as refused_here:
        read_message(nested(63), None)
    assert refused.value.number == refused_here.value.number == 5


@pytest.mark.parametrize("number", NO_IDS, ids=str)
def test_an_id_that_is_no_whole_number_is_refused_at_both_ends(number: object) -> None:
    with pytest.raises(NoMessage, match="id is no whole number"):
        read_message(line({"id": number, "result": 1}), None)
    with pytest.raises(messages.NoMessage, match="id is no whole number"):
        messages.read_request(line({"id": number, "method": "hello"}))


@pytest.mark.parametrize(
    "message",
    [
        {"id": 1},
        {"id": 1, "error": "text"},
        {"id": 1, "error": {"message": 7}},
        {"id": 1, "error": {"message": "x", "data": 7}},
        {"method": "job.message"},
        {"method": "job.message", "params": []},
        {"method": "job.message", "params": {"text": ""}},
        {"method": "job.message", "params": {"job": "1", "text": 7}},
        {"method": "job.message", "params": {"job": [1], "text": "x"}},
        {"method": "job.done", "params": {"job": "1", "result": None}},
        {"method": "job.failed", "params": {"job": "1", "message": None}},
        *(progress(**{name: value}) for name in ("done", "total") for value in (None, "1", 1.5, -1, True, 10**30, [1])),
        *(progress(**{name: value}) for name in ("eta", "rate") for value in ("1", True, 10**30, [1])),
        *(progress(stage=value) for value in (None, 1, ["s"])),
        *(progress(whole=value) for value in ([1], "x", {}, {"share": 0.5})),
        *(progress(whole=WHOLE | change) for change in ({"share": -0.1}, {"ahead": 0.1}, {"ahead": 1.2}, {"left": -1})),
        *(progress(whole=WHOLE | change) for change in ({"step": "1"}, {"steps": 1.5}, {"title": None})),
        *(progress(metrics=value) for value in ([1], "x", {"a": "1"}, {"a": [1]}, {str(n): 1.0 for n in range(101)})),
        {"method": "job.preview", "params": {"job": "1", "image": 7}},
        {"method": "job.preview", "params": {"job": "1", "image": [[[1, 2, 3]]]}},
        preview(dtype="int8"),
        preview(shape=(1, 3)),
        preview(shape=(3, 1, 1)),
        preview(shape=(0, 1, 3), data=""),
        preview(shape=(1, 16385, 3), data="AAAA" * 16385),
    ],
    ids=lambda message: json.dumps(message)[:70],
)
def test_a_message_that_breaks_the_protocol_is_refused(message: dict) -> None:
    with pytest.raises(NoMessage) as refused:
        read_message(line(message), None)
    assert refused.value.number == message.get("id")


def test_numbers_that_are_not_finite_are_refused() -> None:
    overflowing = line(progress(eta=1.0)).replace(b"1.0", b"1e999")
    with pytest.raises(NoMessage, match="no finite number"):
        read_message(overflowing, None)


@pytest.mark.parametrize("params", [[1], "text", None, 7])
def test_a_request_without_named_parameters_is_refused_with_its_number(params: object) -> None:
    with pytest.raises(messages.NoMessage, match="parameters have no names") as refused:
        messages.read_request(line({"id": 3, "method": "hello", "params": params}))
    assert refused.value.number == 3
    for method in (None, 7, ["hello"], {}):
        with pytest.raises(messages.NoMessage, match="names no method") as refused:
            messages.read_request(line({"id": 4, "method": method}))
        assert refused.value.number == 4


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": "sung"},
        {"event": ["done"]},
        {"event": "done"},
        {"event": "done", "result": "x"},
        {"event": "progress", "stage": "s", "done": "1", "total": 2},
        {"event": "preview", "image": 7},
        {"event": "failed", "message": {}},
    ],
    ids=str,
)
def test_an_event_of_a_job_that_breaks_the_protocol_is_refused_by_the_worker(event: dict) -> None:
    with pytest.raises(messages.NoMessage):
        job_messages.JobEvent.from_line(line(event))


def test_a_text_that_blender_cannot_show_is_mended_and_a_long_one_cut_off() -> None:
    read = read_message(b'{"method": "job.message", "params": {"job": "1", "text": "a\\ud800b"}}', None)
    assert read == JobNotification("1", JobMessage("a?b"))
    read = read_message(line({"id": 1, "error": {"message": "x" * 1_000_000}}), None)
    assert isinstance(read, Answer) and len(read.error or "") == client_messages.LONGEST_TEXT


def test_both_ends_follow_the_same_rules() -> None:
    for name in ("MAX_DEPTH", "MAX_ID", "SHOWN"):
        assert getattr(messages, name) == getattr(client_messages, name), name
    assert protocol.SCHEMA == requests.SCHEMA
    assert {f"job.{name}" for name in job_messages.FIELDS} == set(client_messages._EVENTS)


def test_every_event_that_the_worker_accepts_from_a_job_is_one_for_the_client() -> None:
    values = {str: "text", int: 3, float: 0.5, dict: {}}
    for name, fields in job_messages.FIELDS.items():
        image = preview()["params"]["image"]
        event = {field: image if field == "image" else values[kind] for field, kind in fields.items()}
        accepted = job_messages.JobEvent.from_line(line({"event": name} | event))
        read = read_message(line({"method": f"job.{name}", "params": accepted.fields | {"job": "1"}}), None)
        assert isinstance(read, JobNotification) and read.job == "1", name


def test_the_workers_description_is_checked() -> None:
    assert WorkerInfo.from_answer({"schema": 2, "folders": ["/"]}) == WorkerInfo(2)
    for odd in (None, [], {}, {"schema": "2"}, {"schema": True}):
        with pytest.raises(ValueError, match="which version"):
            WorkerInfo.from_answer(odd)


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


def test_the_bar_of_a_whole_job_never_falls_and_goes_on_while_nothing_is_reported(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    job, shown = Watched().job, []

    def report(*progress: object, **whole: object) -> None:
        job.on_event(JobProgress(*progress, whole=WholeJob(**WHOLE | whole) if whole else None))
        shown.append(job.fraction)

    # Sending files to another machine comes first, and takes the first tenth of the bar.
    job.on_event(JobProgress("Sending footage", 480, 480, unit="MB"))
    shown.append(job.fraction)
    assert shown == [pytest.approx(0.1)]
    report("Finding the head", 0, 100, share=0.0, ahead=0.1, left=40.0)
    assert shown[-1] == pytest.approx(0.1) and job.seconds_left == 40
    report("Finding the head", 100, 100, share=0.1, ahead=0.2, left=36.0)
    assert shown[-1] == pytest.approx(0.1 + 0.9 * 0.1)
    now[0] += 2
    assert job.fraction == pytest.approx(0.1 + 0.9 * (0.1 + 0.9 * 2 / 36)) and job.seconds_left == 34
    now[0] += 20
    # The step takes longer than the 4 s that were expected: the bar waits at its end, and later steps may be slow too.
    assert job.fraction == pytest.approx(0.1 + 0.9 * 0.2)
    assert job.seconds_left == pytest.approx(32 * 2)
    now[0] -= 14
    assert job.seconds_left == pytest.approx(32 * (8 + 4) / (4 + 4))
    report("Cropping", 0, 100, share=0.15, ahead=0.6, left=50.0)
    report("Cropping", 50, 100, share=0.5, ahead=0.6, left=50.0)
    job.on_event(JobProgress("Fetching the capture", 0, 480, unit="MB"))
    shown.append(job.fraction)
    assert shown == sorted(shown) and shown[-1] > 0.5


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


def splats(**wrong: object) -> dict:
    arrays = {name: np.zeros((5, *shape), np.float32) for name, shape in SPLATS.items()}
    return arrays | wrong


def image(**wrong: object) -> dict:
    return {name: np.zeros((4, 6, *shape), np.float32) for name, shape in IMAGE.items()} | wrong


def test_answers_that_are_drawn_have_the_shapes_that_were_asked_for() -> None:
    camera = {"camera": {"width": 6, "height": 4}}
    check_result("avatar.splats", {}, splats())
    check_result("avatar.render", camera, image())
    for name in SPLATS:
        for odd in (None, [[0.0] * 3] * 5, np.zeros((4, 9), np.float32), splats()[name].astype(np.float64)):
            with pytest.raises(ValueError, match=f"its “{name}” is not|its “means” is not"):
                check_result("avatar.splats", {}, splats(**{name: odd}))
    for name in IMAGE:
        for odd in (None, np.zeros((6, 4), np.float32), image()[name].astype(np.uint8)):
            with pytest.raises(ValueError, match=f"its “{name}” is not"):
                check_result("avatar.render", camera, image(**{name: odd}))
    holdout = camera | {"subjects": [{}, {"holdout": True}]}
    check_result("avatar.render", holdout, image(hole=image()["alpha"]))
    for missing in (image(), image(hole=image()["color"])):
        with pytest.raises(ValueError, match="its “hole” is not"):
            check_result("avatar.render", holdout, missing)
    for result in (None, [], "text", {}):
        with pytest.raises(ValueError, match="its “means” is not"):
            check_result("avatar.splats", {}, result)
    check_result("track.read", {}, None)


def test_of_a_jobs_messages_the_newest_thousand_are_kept() -> None:
    job = Watched().job
    for number in range(1003):
        job.on_event(JobMessage(str(number)))
    assert job.messages == [str(number) for number in range(3, 1003)]


def test_error_codes_are_those_of_json_rpc() -> None:
    """https://www.jsonrpc.org/specification, section 5.1."""
    assert (protocol.INVALID, protocol.UNKNOWN_METHOD, protocol.DEFECT) == (-32600, -32601, -32603)
    assert -32099 <= protocol.REFUSED <= -32000
