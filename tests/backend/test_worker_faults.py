"""Odd lines, defects and other versions end no connection silently, at the client's and at the worker's end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worker_sessions import ROOT, make_client, until

from blender_addon.worker import connection
from blender_addon.worker.client import WorkerClient, WorkerEnded, WorkerError
from blender_addon.worker.connection import Connection
from blender_addon.worker.jobs import FAILED, Job

# A worker without a backend. `say` prints the lines of its parameters before it answers.
SPEAKER = """
import json, sys
hello = json.loads(sys.argv[1])
for line in sys.stdin:
    message = json.loads(line)
    number, method, params = message["id"], message["method"], message["params"]
    for text in params.get("lines", []) * params.get("times", 1):
        print(text.replace("@ID@", str(number)))
    answer = hello if method == "hello" else {"result": {"job": "job-1", "params": params}}
    print(json.dumps({"jsonrpc": "2.0", "id": number} | answer), flush=True)
"""
DELETING = [(os, "unlink"), (os, "remove"), (os, "rmdir"), (shutil, "rmtree")]


def speaker(hello: dict | None = None, on_log: Callable[[str], None] | None = None) -> WorkerClient:
    answer = json.dumps(hello or {"result": {"schema": 2}})
    return WorkerClient([sys.executable, "-c", SPEAKER, answer], on_log=on_log)


@pytest.fixture
def client() -> Iterator[WorkerClient]:
    made = speaker()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerClient]:
    made = make_client(tmp_path_factory.mktemp("user"))
    yield made
    made.close()


def send_line(client: WorkerClient, line: bytes) -> None:
    client._state.connection._outbox.put(line + b"\n")


@pytest.mark.parametrize("folders", ["/", ["/"], ["{victim}"], {"0": "/"}, "{victim}"])
def test_the_worker_cannot_name_what_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: object
) -> None:
    """Deletions are recorded and not carried out."""
    named = json.loads(json.dumps(folders).replace("{victim}", str(tmp_path)))
    client = speaker({"result": {"schema": 2, "folders": named}})
    client.call("say", {})
    own, removed = client.array_folders, []
    for module, name in DELETING:
        monkeypatch.setattr(module, name, lambda path, *_, **__: removed.append(os.fspath(path)))
    monkeypatch.setattr(Path, "rmdir", lambda path: removed.append(str(path)))
    monkeypatch.setattr("blender_addon.worker.array_folders.REMOVAL_TRIES", 1)
    client.close()
    monkeypatch.undo()
    assert set(removed) == set(own)
    for folder in own:
        Path(folder).rmdir()


def test_odd_lines_are_shown_shortened_and_left_out(client: WorkerClient) -> None:
    log: list[str] = []
    client._on_log = log.append
    banner = "Welcome to studio. Last login: Sun Nov 29 09:00:00 2026"
    odd = [banner, "1", "null", "[]", '{"id": {}}', '{"id": [1], "result": 1}', "x" * 1_000_000, "[" * 100_000]
    events = ['{"method": "job.preview", "params": {"job": "job-1", "image": 1}}', '{"method": [1], "params": 1}']
    assert client.call("say", {"lines": odd + events})["job"] == "job-1"
    client.pump()
    assert len(log) == len(odd) + 1 and banner in log[0]
    assert max(map(len, log)) < 500
    client.pump()
    assert client.call("say", {})["job"] == "job-1"


def test_an_answer_that_cannot_be_read_is_an_error_of_its_request_and_the_second_one_is_left_out(
    client: WorkerClient,
) -> None:
    odd = '{"id": @ID@, "result": {"$array": {"file": "/etc/hostname", "dtype": "uint8", "shape": [1]}}}'
    with pytest.raises(WorkerError, match="answer could not be read .an array in a file that is not named"):
        client.call("say", {"lines": [odd]})
    assert client.call("say", {"lines": ['{"id": @ID@, "result": "first"}', '{"id": @ID@, "result": 2}']}) == "first"
    assert client.call("say", {})["job"] == "job-1"


def test_a_program_that_sends_no_messages_is_ended_with_a_sentence(client: WorkerClient) -> None:
    assert client.call("say", {"lines": ["motd"], "times": connection.MAX_ODD_LINES - 1})["job"]
    with pytest.raises(WorkerEnded, match="sent 1000 lines that are no messages"):
        client.call("say", {"lines": ["motd"], "times": connection.MAX_ODD_LINES})
    assert client.call("say", {})["job"] == "job-1"


def test_a_defect_in_the_reader_ends_the_connection_loudly_and_the_next_request_starts_it_again(
    client: WorkerClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = client.start_job("train", {})
    until(lambda: job.name, client)
    process, errors = client._state.connection._process, []

    def defective(line: bytes, folders: object) -> object:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(connection, "read_message", defective)
    client.request("say", {}, on_error=errors.append)
    with pytest.raises(WorkerEnded, match="a defect in Effigy .RuntimeError: nobody thought of this"):
        client.call("say", {}, timeout=20.0)
    until(lambda: errors and job.finished, client, 5)
    assert process.poll() is not None and not client.alive
    assert job.state == FAILED and "nobody thought of this" in job.error
    assert "nobody thought of this" in capsys.readouterr().err
    monkeypatch.undo()
    assert client.call("say", {})["job"] == "job-1"


def test_a_command_that_cannot_be_started_at_all_is_reported() -> None:
    with pytest.raises(WorkerError, match="could not be started with .*null byte"):
        WorkerClient(["/bin/\x00sh"]).call("hello", timeout=20.0)


def test_a_worker_that_closes_its_output_and_stays_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "EXIT_TIMEOUT", 0.2)
    client = WorkerClient([sys.executable, "-c", "import os, time; os.close(1); time.sleep(60)"])
    with pytest.raises(WorkerEnded):
        client.call("hello", timeout=20.0)
    client.close()


def test_a_callback_that_fails_costs_no_other_answer(client: WorkerClient, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: object) -> None:
        raise KeyError("means")

    answers: list[object] = []
    client.request("say", {}, fail)
    client.request("say", {}, answers.append)
    until(lambda: not client._state.pending)
    client.pump()
    assert len(answers) == 1 and "KeyError: 'means'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc": "2.0", "id": 2, "method": "job.cancel", "params": {}}\n',
        b'{"jsonrpc": "2.0", "id": 2, "method": "head.rig", "params": {}}\n',
        b'{"jsonrpc": "2.0", "id": 2, "met',
    ],
    ids=["read", "worked on", "cut short"],
)
def test_a_worker_to_which_nobody_listens_any_more_ends(line: bytes) -> None:
    """As after a lost connection: its answer, and what it says of a request that was cut short, meet closed pipes."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "backend", "serve"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        worker.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {}}).encode() + b"\n")
        worker.stdin.flush()
        assert json.loads(worker.stdout.readline())["id"] == 1
        worker.stdout.close()
        worker.stderr.close()
        worker.stdin.write(line)
        worker.stdin.close()
        worker.wait(20)
    finally:
        worker.kill()
        worker.wait()


def test_a_job_whose_callback_fails_costs_no_other_job_its_end(client: WorkerClient) -> None:
    def fail(job: Job) -> None:
        if job.finished:
            raise KeyError("panel")

    first = client.start_job("train", {}, fail)
    until(lambda: first.name, client)
    client._state.jobs["job-2"] = second = Job("train", {}, lambda job: None)
    client.restart()
    until(lambda: first.finished and second.finished, client, 10)
    assert first.state == second.state == FAILED


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}], ids=str)
def test_a_request_that_no_message_can_hold_fails_and_the_next_one_is_sent(client: WorkerClient, value: object) -> None:
    answers: list[object] = []
    with pytest.raises(WorkerError, match="“say” could not be sent"):
        client.call("say", {"value": value})
    client.request("say", {"value": value}, answers.append, answers.append, latest="viewport")
    client.request("say", {}, answers.append, answers.append, latest="viewport")
    until(lambda: len(answers) == 2, client, 20)
    assert isinstance(answers[0], WorkerError) and not isinstance(answers[1], WorkerError)


@pytest.mark.parametrize(
    ("hello", "sentence"),
    [
        ({"result": {"schema": 1, "folders": ["/"]}}, "backend is older than this extension: press Install Backend"),
        ({"error": {"code": -32000, "message": "hello has no parameter “folders”: it takes arrays."}}, "it is older"),
        ({"result": {"schema": 3}}, "newer than this extension"),
        ({"result": [1]}, "no worker of Effigy"),
        ({"result": {"schema": "2"}}, "no worker of Effigy"),
    ],
)
def test_a_worker_of_another_version_is_refused_with_a_sentence(hello: dict, sentence: str) -> None:
    client = speaker(hello)
    for _ in range(2):
        with pytest.raises(WorkerError, match=sentence):
            client.call("say", {}, timeout=20.0)
    client.close()


# --- the real worker


ODD_FOR_THE_WORKER = [
    b"",
    b"42",
    b"[]",
    b'{"method": "hello", "id": {}}',
    b'{"method": ["hello"], "id": null}',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"id": 1e999, "method": "hello"}',
    b'{"method": "hello", "params": {"a": NaN}}',
    b"x" * 3_000_000,
    b'{"method": "hello", "params": {"arrays": ["files"]}}',
    b'{"method": "job.start", "params": {"kind": {}}}',
    b'{"method": "job.cancel", "params": {"job": []}}',
    b'{"method": "file.have", "params": {"files": 7}}',
    b'{"method": "avatar.splats", "params": {"avatar": "\\ud800", "pose": {}}}',
    b'{"method": "track.read", "params": {"path": "/a\\u0000b"}}',
]


@pytest.mark.parametrize("line", ODD_FOR_THE_WORKER, ids=lambda line: repr(line[:40]))
def test_the_worker_leaves_odd_lines_out_and_goes_on(shared_worker: WorkerClient, line: bytes) -> None:
    shared_worker.call("hello", timeout=60.0)
    first = shared_worker.pid
    send_line(shared_worker, line)
    assert shared_worker.call("hello", timeout=30.0)["schema"] == 2
    assert shared_worker.call("file.have", {"files": []}, timeout=30.0) == {"offsets": []}
    assert shared_worker.call("job.cancel", {"job": "none"}, timeout=30.0) == {"stopping": False}
    assert shared_worker.pid == first


@pytest.mark.parametrize("line", [b'{"id": @, "method": 7}', b'{"id": @, "method": "hello", "params": [1]}'])
def test_the_worker_answers_a_request_that_is_not_valid(shared_worker: WorkerClient, line: bytes) -> None:
    shared_worker.call("hello", timeout=60.0)
    request = WorkerClient.send(shared_worker, "silent", {})
    with pytest.raises(WorkerError, match="no method “silent”"):
        shared_worker.answer_of(request, 30.0)
    sent = shared_worker._state.connection.send
    shared_worker._state.connection.send = lambda number, *_: send_line(
        shared_worker, line.replace(b"@", str(number).encode())
    )
    try:
        with pytest.raises(WorkerError, match="a request that is not valid"):
            shared_worker.call("hello", timeout=30.0)
    finally:
        shared_worker._state.connection.send = sent


def test_the_worker_does_not_take_other_folders_later(shared_worker: WorkerClient, tmp_path: Path) -> None:
    shared_worker.call("hello", timeout=60.0)
    tmp_path.chmod(0o700)
    for folders in ("/", ["/"], [str(tmp_path)]):
        with pytest.raises(WorkerError, match="folders"):
            shared_worker.call("hello", {"arrays": "files", "folders": folders}, timeout=30.0)
    assert shared_worker.call("head.rig", timeout=30.0)["vertices"].shape[1] == 3 and not list(tmp_path.iterdir())


def test_an_older_extension_gets_a_sentence_from_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extension of 0.1 names no folders, and reads the schema of the answer."""
    send = Connection.send
    monkeypatch.setattr(
        Connection,
        "send",
        lambda self, number, method, params: send(
            self, number, method, {"arrays": "files"} if method == "hello" else params
        ),
    )
    client = make_client(tmp_path)
    with pytest.raises(WorkerError, match="older than the backend: update the extension"):
        client.call("head.rig", timeout=60.0)
    assert client.call("hello", timeout=60.0)["schema"] > 1
    client.close()


DEFECTIVE_WORKER = """
import sys
from backend.service import messages, worker
kind = sys.argv[1]
class Deep:
    pass
def defective(line):
    if b"die" in line:
        raise RuntimeError("nobody thought of this")
    return messages.read_request(line)
worker.read_request = defective
deep = []
for _ in range(100_000):
    deep = [deep]
results = {"object": object(), "deep": deep, "bytes": b"x", "huge": 10**5000, "surrogate": "\\ud800"}
make = worker._Worker.__init__
def init(self, channel):
    make(self, channel)
    for name, value in results.items():
        self._methods[name] = lambda parameters, value=value: {"array": __import__("numpy").zeros(9), "value": value}
    self._methods["stop"] = lambda parameters: (_ for _ in ()).throw(SystemExit(3))
worker._Worker.__init__ = init
worker.serve()
"""


@pytest.fixture(scope="module")
def defective(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerClient]:
    environment = os.environ | {"EFFIGY_USER": str(tmp_path_factory.mktemp("user"))}
    made = WorkerClient([sys.executable, "-c", DEFECTIVE_WORKER, ""], str(ROOT), environment)
    yield made
    made.close()


@pytest.mark.parametrize("method", ["object", "deep", "bytes", "huge"])
def test_a_result_that_no_message_can_hold_is_answered_as_a_defect_and_leaves_no_file(
    defective: WorkerClient, method: str
) -> None:
    with pytest.raises(WorkerError, match=f"could not answer {method} because of a defect in Effigy") as refused:
        defective.call(method, timeout=60.0)
    assert len(str(refused.value)) < 1000
    assert not any(list(Path(folder).iterdir()) for folder in defective.array_folders)


def test_half_of_a_pair_of_surrogates_in_a_result_arrives(defective: WorkerClient) -> None:
    assert defective.call("surrogate", timeout=60.0)["value"] == "\ud800"


@pytest.mark.parametrize("method", ["die", "stop"])
def test_a_defect_in_a_thread_of_the_worker_ends_it_with_an_exit_code_and_it_is_started_again(
    defective: WorkerClient, method: str
) -> None:
    defective.call("hello", timeout=60.0)
    first = defective.pid
    with pytest.raises(WorkerEnded, match="ended unexpectedly .exit code 1"):
        defective.call(method, timeout=30.0)
    assert defective.call("hello", timeout=60.0)["pid"] != first


def test_the_worker_removes_the_arrays_of_a_client_that_was_killed(tmp_path: Path) -> None:
    client = make_client(tmp_path)
    client.call("hello", timeout=60.0)
    folders = list(map(Path, client.array_folders))
    removed = threading.Event()
    client._state.connection.folders.remove = removed.set
    client._state.connection.folders.take = lambda *_: (_ for _ in ()).throw(ValueError("nobody reads"))
    with pytest.raises(WorkerError, match="nobody reads"):
        client.call("head.rig", timeout=60.0)
    assert any(list(folder.iterdir()) for folder in folders)
    client.close()
    assert removed.is_set() and not any(folder.exists() for folder in folders)
