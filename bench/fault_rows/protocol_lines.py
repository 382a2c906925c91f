"""Mutated lines of the protocol, at random between valid ones, to the worker's reader and to the client's."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.fault_rows import _workers
from bench.fault_rows.outcome import Outcome, Place

if TYPE_CHECKING:
    from blender_addon.worker.client import WorkerClient

TITLE: Final = "mutated lines of the protocol, to the worker's and to the client's reader"
ASKED: Final = "connection alive, or ended with a sentence and restarted; no hang over 30 s, no file left or touched"
FULL: Final = 300
SHORT: Final = 60
SENTENCE: Final = 20
"""Characters that an explanation of the end has at least."""

SPEAKER: Final = """
import json, sys
lines = [bytes.fromhex(line) for line in open(sys.argv[1])]
out, sent = sys.stdout.buffer, sys.argv[1] + ".sent"
for request in sys.stdin:
    message = json.loads(request)
    if message["method"] == "next":
        count = int(open(sent).read())
        with open(sent, "w") as file:
            file.write(str(count + 1))
        out.write(lines[count].replace(b"@ID@", str(message["id"]).encode()) + b"\\n")
    result = {"schema": 2} if message["method"] == "hello" else {"job": "job-1"}
    out.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode() + b"\\n")
    out.flush()
"""
"""A worker that sends one of the lines before each answer to `next`. Restarted, it goes on after the last one."""


def run(place: Place, seed: int, count: int) -> Outcome:
    outcome, draw = Outcome(), random.Random(seed)
    before = _workers.exchange_files()
    victim = place.scratch / "victim"
    victim.mkdir()
    (victim / "1-1").write_bytes(b"mine")
    half = count // 2
    ended = _to_the_worker(outcome, draw, count - half, place, victim)
    ended += _to_the_client(outcome, draw, half, place, victim)
    if left := _workers.exchange_files() - before:
        outcome.failures.append(f"left: {sorted(map(str, left))[:5]}")
    if [path.name for path in victim.iterdir()] != ["1-1"] or (victim / "1-1").read_bytes() != b"mine":
        outcome.failures.append("a file that the lines name was changed")
    outcome.figures["lines"] = f"{count - half} to the worker, {half} to the client; {ended} ended the connection"
    return outcome


def _to_the_worker(outcome: Outcome, draw: random.Random, count: int, place: Place, victim: Path) -> int:
    log: list[str] = []
    client = _workers.make_client(place.home, log)
    ended = 0
    try:
        client.call("hello", timeout=60.0)
        for _ in range(count):
            line = _mutated(draw, _requests(victim, place.scratch), victim)
            client._state.connection._outbox.put(line + b"\n")
            failure, has_ended = _still_answers(client, "hello")
            ended += has_ended
            outcome.record(f"to the worker, {line[:100]!r}", failure)
            for job in client.running_jobs:
                job.cancel()
    finally:
        client.close()
    return ended


def _to_the_client(outcome: Outcome, draw: random.Random, count: int, place: Place, victim: Path) -> int:
    from blender_addon.worker.client import WorkerClient

    lines = [_mutated(draw, _answers(victim), victim) for _ in range(count)]
    file = place.scratch / "lines"
    file.write_text("\n".join(line.hex() for line in lines), "utf-8")
    file.with_name("lines.sent").write_text("0", "utf-8")
    log: list[str] = []
    client, ended = WorkerClient([sys.executable, "-c", SPEAKER, str(file)], on_log=log.append), 0
    try:
        client.start_job("train", {})
        for line in lines:
            failure, has_ended = _still_answers(client, "next")
            ended += has_ended
            outcome.record(f"to the client, {line[:100]!r}", failure)
            client.pump()
    finally:
        client.close()
    if (longest := max(map(len, log), default=0)) > 2000:
        outcome.failures.append(f"a line of the log has {longest} characters")
    return ended


def _still_answers(client: WorkerClient, method: str) -> tuple[str | None, bool]:
    """(What is wrong, or None; whether the connection ended)."""
    from blender_addon.worker.client import WorkerEnded, WorkerError

    started = time.monotonic()
    try:
        client.call(method, timeout=_workers.PATIENCE)
    except WorkerEnded as error:
        if len(str(error)) < SENTENCE:
            return f"it ended without a sentence ({error})", True
        try:
            client.call("hello", timeout=60.0)
        except WorkerError as second:
            return f"it ended ({error}) and was not restarted ({second})", True
        return None, True
    except WorkerError as error:
        if time.monotonic() - started >= _workers.PATIENCE:
            return f"no answer: {error}", False
    if not client.alive:
        return "the client takes a connection that answers for ended", False
    return None, False


def _requests(victim: Path, scratch: Path) -> list[dict[str, Any]]:
    """Requests that a client sends, of which none starts long work."""
    missing = str(scratch / "missing")
    pose = {
        "expression": [0.5] * 52,
        "jaw": [0.1, 0, 0],
        "root": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    }
    array = {"$array": {"data": "AACAPwAAAEAAAEBA", "dtype": "float32", "shape": [3]}}
    methods: dict[str, dict[str, Any]] = {
        "hello": {"arrays": "files", "folders": [str(victim)]},
        "head.rig": {"identity": array, "head": {"file": missing}},
        "track.read": {"path": missing},
        "avatar.open": {"path": missing},
        "avatar.splats": {"avatar": missing, "pose": pose, "view": [0, 0, 1]},
        "avatar.render": {"subjects": [{"avatar": missing, "pose": pose}], "camera": {"width": 8, "height": 8}},
        "job.start": {
            "kind": "train",
            "params": {"capture": missing, "avatar": str(scratch / "a.effigy"), "preset": "x"},
        },
        "job.cancel": {"job": "job-1"},
        "file.have": {"files": [["0" * 64, 10]]},
        "file.open": {"name": "clip", "files": [["frames/1.jpg", "0" * 64]]},
        "file.get": {"parts": [["0" * 64, 0, 10]]},
    }
    return [
        {"jsonrpc": "2.0", "id": 10**6 + number, "method": method, "params": params}
        for number, (method, params) in enumerate(methods.items())
    ]


def _answers(victim: Path) -> list[dict[str, Any]]:
    """Answers and events that a worker sends; the file of an array among them is one that does not exist."""
    array = {"$array": {"file": "1-1", "dtype": "float32", "shape": [2, 3]}}
    image = {"$array": {"data": "AAEC" * 4, "dtype": "uint8", "shape": [2, 2, 3]}}
    progress = {"stage": "Training", "done": 3, "total": 9, "eta": 2.5, "rate": 1.0, "metrics": {"psnr": 20.0}}
    events = {
        "job.progress": progress,
        "job.preview": {"image": image},
        "job.message": {"text": "A sentence."},
        "job.done": {"result": {"avatar": str(victim)}},
        "job.failed": {"message": "No."},
    }
    answers: list[dict[str, Any]] = [
        {"id": "@ID@", "result": {"schema": 2, "folders": [str(victim)]}},
        {"id": "@ID@", "result": {"means": array, "scales": array}},
        {"id": "@ID@", "error": {"code": -32000, "message": "No.", "data": "Traceback"}},
        {"id": 1, "result": {"schema": 2, "folders": "/"}},
    ]
    return answers + [{"method": name, "params": {"job": "job-1"} | params} for name, params in events.items()]


def _mutated(draw: random.Random, messages: list[dict[str, Any]], victim: Path) -> bytes:
    """One line without its end, from one of these messages or from what else a connection may carry."""
    message = draw.choice(messages)
    text = json.dumps(message).replace('"@ID@"', "@ID@").encode()
    kinds: list[Callable[[], bytes]] = [
        lambda: _with_hostile_values(draw, message, victim),
        lambda: _with_hostile_values(draw, message, victim),
        lambda: _with_other_bytes(draw, text),
        lambda: text[: draw.randrange(len(text))],
        lambda: text[draw.randrange(len(text)) :],
        lambda: text + text,
        lambda: draw.choice(_OTHER_LINES),
    ]
    line = draw.choice(kinds)()
    return line.replace(b"\n", b" ")


def _with_hostile_values(draw: random.Random, message: dict[str, Any], victim: Path) -> bytes:
    """The message with one to three of its values replaced, or left out."""
    changed = json.loads(json.dumps(message))
    for _ in range(draw.randint(1, 3)):
        places = list(_places(changed))
        group, key = draw.choice(places)
        if isinstance(group, dict) and draw.random() < 0.15:
            del group[key]
        else:
            group[key] = draw.choice(_hostile_values(victim))
        if not changed:
            break
    return json.dumps(changed).replace('"@ID@"', "@ID@").replace('"@DEEP@"', "[" * 3000 + "]" * 3000).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (object or list, name or index) in a message."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, entry in list(entries) for place in [(value, key), *_places(entry)]]


def _hostile_values(victim: Path) -> list[Any]:
    file = str(victim / "1-1")
    arrays = [
        {"$array": {"file": name, "dtype": dtype, "shape": shape}}
        for name in (file, "../victim/1-1", "1-1", "/", "..", "C:1-1", "a\0b", 7, None)
        for dtype, shape in (("uint8", [4]), ("object", [1]), ("float64", [10**12]), ("uint8", [-1]))
    ]
    return [
        *(None, True, False, 0, -1, 1.5, 10**30, 1e308, float("nan"), float("inf")),
        *("", "/", "..", "x" * 200_000, "\ud800", "\0", file, str(victim), "@DEEP@"),
        *([], {}, [[]], ["/"], {"": {}}, ["x"] * 2000, [victim.name, 1]),
        {"$array": {"data": "AAAA" * 100, "dtype": "float32", "shape": [10**9]}},
        {"$array": {"data": "****", "dtype": "float32", "shape": []}},
        *arrays,
    ]


def _with_other_bytes(draw: random.Random, text: bytes) -> bytes:
    changed = bytearray(text)
    for _ in range(draw.randint(1, 8)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


_OTHER_LINES: Final = (
    b"",
    b"42",
    b"null",
    b"[]",
    b'"text"',
    b"Welcome to Debian GNU/Linux 12. Last login: Sun Nov 29 09:00:00 2026 from 192.0.2.7",
    b"** WARNING: connection is not using a post-quantum key exchange algorithm.",
    b"\xff\xfe\x00\x01" * 50,
    b"\x00" * 1000,
    b"x" * 2_000_000,
    b"[" * 200_000,
    b'{"a":' * 50_000,
    b'{"id": ' + b"7" * 10_000 + b', "result": 1}',
    b'{"id": NaN, "result": Infinity}',
    b'{"id": {}, "error": {"message": "x"}}',
    b'{"id": [1], "result": 1}',
    b'{"id": null, "error": {"code": -32600, "message": "x"}}',
    b'{"id": 1, "id": 2, "result": null, "result": 3}',
    '{"id": 1, "result": 1}'.encode("utf-16"),
    b'\xef\xbb\xbf{"id": 1, "result": 1}',
)
"""What no version sends as a message."""
