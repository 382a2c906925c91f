"""The client drops stale requests, notices a dead worker, reports it and starts another."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from worker_sessions import make_client, until, untrained_avatar

from blender_addon.worker.client import WorkerClient, WorkerEnded, WorkerError
from blender_addon.worker.requests import Request

# A worker without a backend: each request takes a while, and the answer counts the requests that arrived.
SLOW_WORKER = """
import json, sys, time
count = 0
for line in sys.stdin:
    message = json.loads(line)
    method = message["method"]
    if method == "die":
        sys.exit("something of importance is missing")
    if method not in ("hello", "quick"):
        time.sleep(0.15)
        count += 1
    result = {"schema": %d, "folders": []} if method == "hello" else {"count": count, "params": message["params"]}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@pytest.fixture
def slow():
    client = WorkerClient([sys.executable, "-c", SLOW_WORKER % 2])
    yield client
    client.close()


def test_scrubbing_sends_only_the_first_and_the_newest_request(slow):
    shown, others = [], []
    slow.call("hello")
    for frame in range(40):
        slow.request("pose", {"frame": frame}, lambda answer: shown.append(answer["params"]["frame"]), latest="avatar")
        slow.request("pose", {"frame": -frame}, lambda answer: others.append(answer["params"]["frame"]), latest="other")
    until(lambda: 39 in shown and -39 in others, slow)
    assert shown == [0, 39] and others == [0, -39]
    assert slow.call("quick")["count"] == 4


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows cannot halt a process")
def test_requests_and_pumping_never_wait(slow):
    """Neither for a worker that is starting, nor for one that is busy, nor for one that reads nothing."""
    spent = []

    def measured(function, *arguments):
        started = time.perf_counter()
        function(*arguments)
        spent.append(time.perf_counter() - started)

    answers = []
    for _ in range(20):
        measured(slow.request, "quick", {}, answers.append)
        measured(slow.pump)
    until(lambda: len(answers) == 20, slow)
    os.kill(slow.pid, signal.SIGSTOP)
    try:
        for _ in range(20):
            measured(slow.request, "quick", {"padding": "x" * 100_000}, answers.append)
            measured(slow.pump)
    finally:
        os.kill(slow.pid, signal.SIGCONT)
    until(lambda: len(answers) == 40, slow)
    assert max(spent) < 0.05


def test_a_call_is_answered_while_nobody_pumps(slow):
    seen = []
    slow.request("quick", {}, seen.append)
    assert slow.call("quick", {"a": 1})["params"] == {"a": 1}
    assert seen == []
    until(lambda: seen, slow)


def test_a_call_that_takes_too_long_ends_with_a_sentence(slow):
    slow.call("hello")
    with pytest.raises(WorkerError, match="did not answer “slow” within 0.05 seconds"):
        slow.call("slow", timeout=0.05)
    assert slow.call("quick")["count"] == 1


def test_a_killed_worker_is_noticed_reported_and_replaced_and_what_it_was_asked_is_asked_again(tmp_path):
    log = []
    client = make_client(tmp_path, on_log=log.append)
    try:
        path = untrained_avatar(tmp_path / "person.effigy")
        client.call("avatar.open", {"path": path})
        folders = client.array_folders
        errors, answers, called = [], [], []
        request = {"avatar": path, "pose": {}, "view": [0, 0, 1]}
        first = client.pid
        os.kill(first, signal.SIGSTOP)
        for _ in range(5):
            client.request("avatar.splats", request, answers.append, errors.append, latest="viewport")
        client.request("head.rig", {}, answers.append, errors.append)
        waiting = threading.Thread(target=lambda: called.append(client.call("head.rig")))
        waiting.start()
        os.kill(first, signal.SIGKILL)
        assert until(lambda: any("killed" in line for line in log), client) < 1.0
        assert not any(Path(folder).exists() for folder in folders)
        # Of the five, the one in progress and the newest are answered.
        until(lambda: len(answers) >= 3 and called, client)
        assert errors == [] and sum("means" in answer for answer in answers) == 2
        assert client.call("avatar.splats", request)["means"].shape[1] == 3
        assert client.pid != first
    finally:
        client.close()


def test_a_request_that_ends_the_worker_is_repeated_twice_and_then_given_up(tmp_path):
    """An image for which memory does not suffice must not be tried for ever."""
    starts = tmp_path / "starts"
    code = (
        f"import os, signal, sys; open({str(starts)!r}, 'a').write('.')\n"
        "for line in sys.stdin:\n    'too large' in line and os.kill(os.getpid(), signal.SIGKILL)"
    )
    client = WorkerClient([sys.executable, "-c", code])
    with pytest.raises(WorkerEnded, match="killed.*starts it again"):
        client.call("too large", timeout=30)
    assert starts.read_text() == "..."
    client.close()


def test_requests_with_equal_arrays_are_told_apart():
    """When a worker ends, each that waits is either sent again or fails."""
    first, second = (Request("avatar.splats", {"expression": np.zeros(3)}, None, None) for _ in range(2))
    assert first != second and second in (first, second)


def test_jobs_that_have_ended_are_forgotten_when_the_next_one_starts(slow):
    """They hold images and curves, and a day has many."""
    ended = []
    for _ in range(5):
        job = slow.start_job("quick", {})
        until(lambda: slow.call("quick") and not slow.pump(), slow)
        job.end("done", "")
        ended.append(job)
    assert slow.jobs == ended[-1:]


def test_a_worker_that_ends_with_an_error_is_quoted():
    client = WorkerClient([sys.executable, "-c", SLOW_WORKER % 2])
    with pytest.raises(WorkerError, match="exit code 1.*ends with: something of importance is missing"):
        client.call("die")
    assert client.call("quick")["count"] == 0
    client.close()


def test_a_python_that_lacks_a_package_is_reported_with_a_remedy():
    with pytest.raises(WorkerError, match="lacks the package nonesuch.*Install Backend"):
        WorkerClient([sys.executable, "-c", "import nonesuch"]).call("hello")


def test_a_missing_python_and_a_program_that_is_no_python_are_reported(tmp_path):
    with pytest.raises(WorkerError, match="could not be started with /nowhere/python"):
        WorkerClient(["/nowhere/python"]).call("hello")
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no module named backend >&2\nexit 1\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(WorkerError, match="exit code 1.*no module named backend"):
        WorkerClient([str(script), "-m", "backend", "serve"]).call("hello")


def test_a_newer_backend_is_refused_with_a_sentence():
    client = WorkerClient([sys.executable, "-c", SLOW_WORKER % 3])
    until(lambda: _refusal(client), client)
    assert "newer than this extension" in _refusal(client)
    client.close()


def _refusal(client) -> str:
    try:
        client.call("quick")
    except WorkerError as error:
        return str(error)
    return ""


def test_closing_ends_the_worker_and_removes_its_folders(tmp_path):
    client = make_client(tmp_path)
    client.call("hello", {"arrays": "files"})
    folders = client.array_folders
    assert all(Path(folder).is_dir() for folder in folders)
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 2.0
    assert not any(Path(folder).exists() for folder in folders)
    with pytest.raises(WorkerError, match="shut down"):
        client.call("head.rig")


def test_the_doctor_answers_while_other_requests_are_answered(tmp_path):
    client = make_client(tmp_path)
    try:
        rows = []
        client.request("doctor", {}, lambda answer: rows.extend(answer["rows"]))
        assert client.call("head.rig")["joint_names"][1] == "neck"
        until(lambda: rows, client)
        assert ["Open head", "ok"] in [row[:2] for row in rows] and all(len(row) == 3 for row in rows)
    finally:
        client.close()


def test_pumping_tells_whether_anything_had_arrived(slow):
    seen = []
    assert slow.pump() is False
    slow.request("quick", {}, seen.append)
    assert slow.busy
    until(lambda: not slow._state.pending)
    assert slow.pump() is True and len(seen) == 1
    assert slow.pump() is False and not slow.busy


def test_waiting_for_a_job_ends_with_a_sentence_and_leaves_the_processor_to_the_job():
    client = WorkerClient([sys.executable, "-c", SLOW_WORKER.replace('"count": count', '"job": "1"') % 2])
    job = client.start_job("train", {})
    until(lambda: job.name, client)
    spent = time.thread_time()
    with pytest.raises(WorkerError, match="“train” did not end within 0.5 seconds"):
        client.wait(job, 0.5)
    assert time.thread_time() - spent < 0.1
    assert client.running_jobs == [job]
    client.close()


@pytest.mark.parametrize(("empty_lines", "quoted"), [(4, True), (5, False)])
def test_the_reason_is_looked_for_in_the_last_five_lines_of_the_log(empty_lines, quoted):
    """What stands further up in a log has hardly to do with the end of the worker."""
    code = f"import sys; sys.stdin.readline(); sys.stderr.write('the reason' + {empty_lines + 1} * chr(10)); exit(3)"
    with pytest.raises(WorkerError, match="exit code 3") as ended:
        WorkerClient([sys.executable, "-c", code]).call("hello")
    assert ("Its log ends with: the reason" in str(ended.value)) == quoted


def test_a_stuck_worker_is_restarted_by_the_next_request(slow):
    slow.call("quick")
    first, errors = slow.pid, []
    slow.request("slow", {}, on_error=errors.append)
    slow.restart()
    until(lambda: errors, slow)
    assert not slow.alive and slow.info is None
    assert slow.call("quick")["count"] == 0 and slow.pid != first
