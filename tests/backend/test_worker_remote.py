"""A client that shares no files with its worker: interrupted transfers go on, and what a worker offers is checked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from small_capture import make_small_capture
from worker_sessions import ROOT, until, untrained_avatar

from backend.assets import asset_path
from backend.avatar.avatar import Avatar, build_networks, save_avatar
from backend.avatar.settings import AvatarSettings
from backend.formats.capture import load_capture
from backend.formats.track import load_track
from backend.service.job_specs import JOB_REQUESTS
from backend.service.request_fields import field_types, parameter_name
from backend.service.stages import STAGES
from backend.training.checkpoint import checkpoint_path
from blender_addon.errors import EffigyError
from blender_addon.worker import arrivals, connection
from blender_addon.worker.client import WorkerEnded
from blender_addon.worker.file_fetcher import RemoteFile
from blender_addon.worker.file_sender import scan
from blender_addon.worker.jobs import CANCELLED, DONE, FAILED
from blender_addon.worker.messages import JobPreview
from blender_addon.worker.path_fields import JOBS
from blender_addon.worker.path_map import PathMap
from blender_addon.worker.placing import check_place, place_folder
from blender_addon.worker.remote import RemoteWorkerClient
from blender_addon.worker.transfer import Transfer

MEGABYTE = 10**6


@pytest.fixture
def make_client(tmp_path):
    """Makes clients of one worker "machine": a process whose files are below another folder."""
    clients = []

    def make(path_map: PathMap | None = None) -> RemoteWorkerClient:
        environment = os.environ | {"EFFIGY_USER": str(tmp_path / "there")}
        command = [sys.executable, "-m", "backend", "serve"]
        client = RemoteWorkerClient(
            command, str(ROOT), environment, path_map=path_map or PathMap(), staging=tmp_path / "fetched"
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def here(tmp_path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def kill_at(client: RemoteWorkerClient, method: str, count: int) -> None:
    """Kills the worker when the client sends the message `method` for the `count`-th time, as a lost line would."""
    ask, seen = client._ask, [0]

    def counting(name: str, params: dict):
        seen[0] += name == method
        if seen[0] == count and name == method:
            os.kill(client.pid, signal.SIGKILL)
        return ask(name, params)

    client.sender.ask = counting
    client.fetcher.ask = counting


def big_video(here: Path, megabytes: int = 20) -> Path:
    path = here / "clip.mp4"
    path.write_bytes(os.urandom(megabytes * MEGABYTE))
    return path


def test_every_path_of_every_job_is_known():
    for kind, request_classes in JOB_REQUESTS.items():
        wanted = {
            parameter_name(field)
            for request_class in request_classes
            for name, field in request_class.__dataclass_fields__.items()
            if name in field_types(request_class) and "Path" in str(field_types(request_class)[name])
        }
        assert {field.name for field in JOBS[kind]} == wanted, kind


def test_a_connection_that_is_lost_while_sending_goes_on_where_it_ended(make_client, here):
    params = {"video": str(big_video(here)), "capture": str(here / "clip.capture")}
    client = make_client()
    kill_at(client, "file.put", 20)
    job = client.wait(client.start_job("import", params), 60)
    assert job.state == FAILED and "kept on the worker" in job.error, job.error
    again = make_client()
    texts = []
    job = again.start_job("import", params, lambda job: texts.append((job.stage, job.done, job.total, job.unit)))
    again.wait(job, 60)
    assert "clip.mp4 is not a video" in job.error
    assert 5 * MEGABYTE < again.sender.bytes_sent < 13 * MEGABYTE, "sent again what was there"
    sending = [entry for entry in texts if entry[0] == "Sending footage to the worker"]
    assert sending[0][1] >= 8 and sending[-1][1:] == (20, 20, "MB")
    assert list(here.iterdir()) == [here / "clip.mp4"]


def test_a_request_whose_connection_is_lost_is_answered_over_the_next_one(make_client, here):
    avatar, client = untrained_avatar(here / "person.effigy"), make_client()
    client.call("avatar.open", {"path": avatar})
    first = client.pid
    os.kill(first, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (first, signal.SIGKILL)).start()
    answer = client.call("avatar.splats", {"avatar": avatar, "pose": {}, "view": [0, 0, 1]})
    assert answer["means"].shape[1] == 3 and client.pid != first


def test_sending_stops_when_the_job_is_cancelled(make_client, here):
    client = make_client()
    (here / "clip.mp4").touch()
    os.truncate(here / "clip.mp4", 200 * MEGABYTE)
    job = client.start_job("import", {"video": str(here / "clip.mp4"), "capture": str(here / "clip.capture")})
    until(lambda: job.stage.startswith("Sending") and job.done > 0, client)
    job.cancel()
    client.wait(job, 30)
    assert job.state == CANCELLED and "kept on the worker" in job.error
    assert client.sender.bytes_sent < 150 * MEGABYTE
    assert client.call("head.rig")["head"]["name"]


def test_a_result_that_was_not_fetched_is_fetched_later_without_doing_the_work_again(make_client, here):
    params = {"video": str(asset_path("demo.mp4")), "capture": str(here / "clip.capture"), "size": 64, "max_frames": 3}
    client = make_client()
    kill_at(client, "file.get", 1)
    job = client.wait(client.start_job("import", params | {"landmarks_only": True}), 120)
    assert job.state == FAILED and "kept on the worker" in job.error and not list(here.iterdir())
    again, stages = make_client(), []
    job = again.start_job("import", params | {"landmarks_only": True}, lambda job: stages.append(job.stage))
    again.wait(job, 60)
    assert job.state == DONE and job.result["frames"] == 3, job.error
    assert STAGES["cropping"] not in stages and "Fetching the capture from the worker" in stages
    assert load_capture(here / "clip.capture").frame_count == 3
    assert load_track(here / "clip.capture" / "track.npz").frame_count == 3
    assert [path.name for path in here.iterdir()] == ["clip.capture"]


def test_a_training_goes_on_after_the_connection_was_lost_and_a_stopped_one_leaves_its_checkpoint_here(
    make_client, here, monkeypatch, tmp_path
):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "there"))
    ball = make_small_capture(here)[0].folder
    params = {"capture": str(ball), "avatar": str(here / "ball.effigy"), "size": 64, "minutes": 5, "device": "cpu"}
    working = (STAGES["Warm-up"], STAGES["Training"])
    client = make_client()
    job = client.start_job("train", params)
    until(lambda: job.finished or (job.stage in working and job.done > 3), client, 120)
    os.kill(client.pid, signal.SIGKILL)
    until(lambda: job.finished, client)
    assert job.state == FAILED and "goes on from there" in job.error
    results = tmp_path / "there" / "exchange" / "results"
    until(lambda: list(results.rglob("*.checkpoint")), seconds=60)
    again = make_client()
    job = again.start_job("train", params)
    until(lambda: job.finished or (job.stage in working and job.done > 0), again, 120)
    assert job.messages and "connection was lost" in job.messages[0], job.error
    job.cancel()
    again.wait(job, 60)
    assert job.state == CANCELLED and checkpoint_path(here / "ball.effigy").is_file(), job.error
    sent = again.sender.bytes_sent
    job = again.start_job("train", params | {"resume": True})
    until(lambda: job.finished or (job.stage in working and job.done > 0), again, 120)
    assert not job.finished and not job.messages, job.error
    assert again.sender.bytes_sent == sent, "the worker has this checkpoint"


def test_a_track_that_is_refined_elsewhere_comes_into_the_capture_here(make_client, here, monkeypatch, tmp_path):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "there"))
    capture, track, model = make_small_capture(here, frames=6)
    settings = AvatarSettings(size=64)
    networks = build_networks(settings, model, track.identity).eval()
    save_avatar(Avatar(networks, model, track.identity, settings), here / "ball.effigy")
    before = {path.name for path in capture.folder.iterdir()}
    client = make_client()
    params = {"capture": str(capture.folder), "avatar": str(here / "ball.effigy")}
    job = client.wait(client.start_job("refine", params), 120)
    assert job.state == DONE and job.result["frames"] == 6, job.error
    assert {path.name for path in capture.folder.iterdir()} == before | {"track_refined.npz"}
    assert load_track(capture.folder / "track_refined.npz").frame_count == 6


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_sent(make_client, here):
    (here / "holiday").mkdir()
    (here / "holiday" / "photo.jpg").write_bytes(b"mine")
    client = make_client()
    params = {"video": str(big_video(here, 1)), "capture": str(here / "holiday")}
    job = client.wait(client.start_job("import", params), 30)
    assert job.state == FAILED and "holds other files" in job.error
    job = client.wait(client.start_job("import", params | {"capture": str(here / "clip.mp4" / "x.capture")}), 30)
    assert job.state == FAILED and "cannot be written" in job.error
    assert (here / "holiday" / "photo.jpg").read_bytes() == b"mine"


def test_files_that_come_into_the_folder_while_a_result_is_made_are_not_replaced(here):
    (here / "content").write_bytes(b"made")
    (here / "clip.capture").mkdir()
    check_place(here / "clip.capture", replaces_folder=True)
    (here / "clip.capture" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(EffigyError, match="holds other files"):
        place_folder(here / "clip.capture", {"capture.json": here / "content"})
    assert everything_below(here) == {"content", "clip.capture", "clip.capture/photo.jpg"}


# --- a worker that means harm

HOSTILE = """
import base64, hashlib, json, sys
data = b"harm"
sha = hashlib.sha256(data).hexdigest()
name, kind, victim = json.loads(sys.argv[1])
def say(**message):
    print(json.dumps({"jsonrpc": "2.0"} | message), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    number, method = message["id"], message["method"]
    if method == "hello":
        say(id=number, result={"schema": 2, "folders": [victim] if kind == "folders" else []})
    elif method == "file.have":
        say(id=number, result={"offsets": [size for _, size in message["params"]["files"]]})
    elif method == "file.open":
        say(id=number, result={"path": "/there/clip.mp4"})
    elif method == "file.output":
        say(id=number, result={"path": "/there/results", "note": ""})
    elif method == "job.start" and kind == "nameless":
        say(id=number, result=["job-1"])
    elif method == "job.start":
        say(id=number, result={"job": "job-1"})
        say(method="job.done", params={"job": "job-1", "result": {"capture": "/there/results/capture/clip.capture"}})
    elif method == "file.collect":
        size = 10**15 if kind == "size" else len(data)
        say(id=number, result={"files": [["capture/clip.capture/capture.json", size, sha], [name, size, sha]]})
    elif method == "file.get":
        wrong = kind == "content"
        parts = [base64.b64encode(b"HARM" if wrong else data).decode() for _ in message["params"]["parts"]]
        say(id=number, result={"parts": parts})
    elif method == "strange":
        say(id=[1], result=1)
        say(id={}, error={"message": "x"})
        say(method="job.progress", params={"job": "x", "stage": 1})
        say(method="job.progress", params={"job": [1], "stage": "x", "done": 1, "total": 2})
        say(method="job.progress", params={"job": "job-1", "stage": "x", "done": {}, "total": "many"})
        print('{"id": ' + "[" * 100_000 + "]" * 100_000 + "}", flush=True)
        say(id=number, result={"strange": True})
    elif method == "flood":
        image = {"$array": {"data": "AAAA", "dtype": "uint8", "shape": [1, 1, 3]}}
        for _ in range(300):
            say(method="job.progress", params={"job": "x", "stage": "x", "done": 1, "total": 2})
            say(method="job.preview", params={"job": "x", "image": image})
            say(method="job.message", params={"job": "x", "text": "x"})
            say(method="job.done", params={"job": "x", "result": {}})
            print("x", file=sys.stderr, flush=True)
        say(id=number, result={})
    elif method == "silent":
        pass
    elif method == "log":
        sys.stderr.write("x" * 1_000_000)
        sys.stderr.flush()
        say(id=number, result={})
    elif method == "endless":
        while True:
            sys.stdout.write("x" * 100_000)
    elif method == "array":
        say(id=number, result={"$array": {"file": victim + "/secret", "dtype": "uint8", "shape": [4]}})
    else:
        say(id=number, result={})
"""
BASE = "capture/clip.capture"


def hostile(tmp_path: Path, name: str, kind: str = "") -> RemoteWorkerClient:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "secret").write_bytes(b"mine")
    command = [sys.executable, "-c", HOSTILE, json.dumps([name, kind, str(victim)])]
    return RemoteWorkerClient(command, path_map=PathMap(), staging=tmp_path / "fetched")


def everything_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "name",
    [
        f"{BASE}/../../../victim/secret",
        f"{BASE}/frames/../../x",
        "/etc/passwd",
        "capture/other.capture/x",
        "video/clip.mp4",
        f"{BASE}/C:\\x",
        f"{BASE}/..\\..\\x",
        f"{BASE}/.bashrc",
        f"{BASE}/con.txt",
        f"{BASE}/a\x00b",
        f"{BASE}//x",
        f"{BASE}/CAPTURE.JSON",
        f"{BASE}/" + "/".join("x" * 9),
        f"{BASE}/" + "x" * 300,
    ],
)
def test_a_worker_cannot_write_outside_the_place_that_the_artist_chose(tmp_path, here, name):
    client = hostile(tmp_path, name)
    before = everything_below(tmp_path)
    job = client.start_job("import", {"video": str(asset_path("demo.mp4")), "capture": str(here / "clip.capture")})
    client.wait(job, 20)
    client.close()
    assert job.state == FAILED and "nothing was fetched" in job.error, job.error
    assert everything_below(tmp_path) == before and (tmp_path / "victim" / "secret").read_bytes() == b"mine"


@pytest.mark.parametrize(("kind", "sentence"), [("size", "no room"), ("content", "damaged")])
def test_a_worker_cannot_fill_the_disk_or_pass_wrong_contents(tmp_path, here, kind, sentence):
    client = hostile(tmp_path, f"{BASE}/x", kind)
    job = client.start_job("import", {"video": str(asset_path("demo.mp4")), "capture": str(here / "clip.capture")})
    client.wait(job, 20)
    client.close()
    assert job.state == FAILED and sentence in job.error, job.error
    assert not list(here.iterdir())


def test_a_worker_elsewhere_cannot_have_files_here_read_or_deleted(tmp_path):
    client = hostile(tmp_path, "x", "folders")
    lines: list[str] = []
    client._on_log = lines.append
    with pytest.raises(EffigyError, match="answer could not be read .an array in a file"):
        client.call("array", timeout=20.0)
    client.pump()
    client.close()
    assert (tmp_path / "victim" / "secret").read_bytes() == b"mine"
    assert any("that is no message was left out" in line for line in lines)


def test_messages_that_follow_no_protocol_are_left_out_and_the_connection_stays(tmp_path):
    client = hostile(tmp_path, "x")
    assert client.call("strange", timeout=20.0) == {"strange": True}
    assert client.call("hello again", timeout=20.0) == {}
    client.pump()
    client.close()


def test_a_worker_that_sends_without_an_end_fills_no_memory_and_leaves_blender_usable(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "MOST_WAITING", 50)
    monkeypatch.setattr(arrivals, "MOST_EVENTS", 100)
    client, lines = hostile(tmp_path, "x"), []
    client._on_log = lines.append
    assert client.call("flood", timeout=20.0) == {}
    time.sleep(0.3)
    assert 50 <= len(client._arrived) <= 101
    client._arrived.put(lambda: time.sleep(0.2))
    client._arrived.put(lambda: lines.append("last"))
    client.pump()
    assert "last" not in lines
    client.pump()
    assert "last" in lines
    client._on_log_line("y")
    client.pump()
    assert lines[-1] == "y" and re.fullmatch("[0-9]+ lines of the log were left out.*", lines[-2])
    client.close()


def test_previews_that_nobody_takes_are_left_out_until_the_earlier_ones_are_taken():
    waiting, seen = arrivals.Arrivals(), []
    for number in range(20):
        waiting.put_event(JobPreview(np.zeros((1, 1, 3), np.uint8)), lambda number=number: seen.append(number))
    while deliver := waiting.take():
        deliver()
    assert seen == list(range(arrivals.MOST_PREVIEWS))
    waiting.put_event(JobPreview(np.zeros((1, 1, 3), np.uint8)), lambda: seen.append("next"))
    assert len(waiting) == 1


def test_two_blenders_do_not_fetch_the_same_result_at_once(tmp_path, here):
    """They would append to the same files."""
    client = hostile(tmp_path, f"{BASE}/x")
    fetch, jobs = client.fetcher.fetch, []

    def fetch_in_another_blender(key: str, *arguments):
        jobs.append(key)
        script = (
            "import sys; from pathlib import Path; from blender_addon.worker.file_fetcher import FileFetcher\n"
            "with FileFetcher(None, Path(sys.argv[1])).held(sys.argv[2]): print('fetching')"
        )
        other = [sys.executable, "-c", script, str(tmp_path / "fetched"), key]
        jobs.append(subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=False))
        return fetch(key, *arguments)

    client.fetcher.fetch = fetch_in_another_blender
    job = client.start_job("import", {"video": str(asset_path("demo.mp4")), "capture": str(here / "clip.capture")})
    client.wait(job, 30)
    client.close()
    assert job.state == DONE and "Another Blender is fetching the same result" in jobs[1].stderr and not jobs[1].stdout


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
@pytest.mark.parametrize(("kind", "name"), [("track", "head_mattes/0.png"), ("evaluate", "frames/0.png")])
def test_a_link_in_a_strangers_folder_leads_no_result_elsewhere(here, kind, name):
    place, private, content = here / "clip.capture", here / "private", here / "content"
    for folder in (place, private):
        folder.mkdir()
    (private / "0.png").write_bytes(b"mine")
    content.write_bytes(b"made")
    (place / name).parent.symlink_to(private)

    class Fetched:
        held, discard = staticmethod(nullcontext), staticmethod(lambda key: None)

        def collect(self, key: str, names: object) -> list[RemoteFile]:
            return [RemoteFile(f"x/{name}", 4, "0" * 64)]

        def fetch(self, *_: object) -> dict[str, Path]:
            return {"0" * 64: content}

    transfer = Transfer(None, Fetched(), PathMap(), None, ())
    transfer._outputs = [(next(field for field in JOBS[kind] if field.writes), place, "x")]
    if kind == "track":
        transfer.fetch()
        assert (place / name).read_bytes() == b"made" and not (place / name).parent.is_symlink()
    else:
        with pytest.raises(EffigyError, match="is a link to another folder"):
            transfer.fetch()
    assert (private / "0.png").read_bytes() == b"mine" and len(list(private.iterdir())) == 1


def test_a_worker_cannot_name_a_file_here_by_a_path_below_its_result():
    transfer = Transfer(None, None, PathMap(), None, ())
    transfer._pairs = [("/there/clip.capture", "/here/clip.capture")]
    assert transfer.to_local("/there/clip.capture/frames/0.jpg") == "/here/clip.capture/frames/0.jpg"
    for path in ("/there/clip.capture/../../etc/passwd", "/there/clip.capture/a\\..\\..\\..\\etc\\passwd"):
        assert transfer.to_local(path) == path


def test_a_job_to_which_the_worker_gives_no_name_ends_with_a_sentence(tmp_path, here):
    client = hostile(tmp_path, "x", "nameless")
    params = {"video": str(asset_path("demo.mp4")), "capture": str(here / "clip.capture")}
    job = client.wait(client.start_job("import", params), 20)
    client.close()
    assert job.state == FAILED and "unknown here" in job.error


def test_a_line_of_the_log_without_an_end_is_shown_in_parts(tmp_path):
    client, lines = hostile(tmp_path, "x"), []
    client._on_log = lines.append
    client.call("log", timeout=20.0)
    until(lambda: sum(map(len, lines)) > 900_000, client, 10)
    client.close()
    assert max(map(len, lines)) <= 1 << 16


def test_a_worker_that_sends_a_message_without_an_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "LONGEST_MESSAGE", 1_000_000)
    client = hostile(tmp_path, "x")
    with pytest.raises(WorkerEnded, match="a message without an end"):
        client.call("endless", timeout=20.0)
    client.close()


def test_only_what_the_artist_chose_is_sent_and_no_file_to_which_a_link_in_it_leads(tmp_path, here):
    (here / "secret").write_bytes(b"mine")
    frames = here / "clip.capture" / "frames"
    frames.mkdir(parents=True)
    (frames / "000001.jpg").write_bytes(b"frame")
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "key").write_bytes(b"mine")
    linked = here / "linked.capture"
    linked.symlink_to(here / "clip.capture")
    assert list(scan(linked, ("capture.json", "frames"))) == ["frames/000001.jpg"]
    for link, target in (
        (frames / "000002.jpg", here / "secret"),
        (frames / "more", here / "elsewhere"),
        (frames / "again", frames),
        (frames.parent / "capture.json", here / "secret"),
    ):
        link.symlink_to(target)
        with pytest.raises(EffigyError, match="is a link to another place, which is not sent"):
            scan(here / "clip.capture", ("capture.json", "frames"))
        link.unlink()


@pytest.mark.parametrize("content", [b"", b"ssh-rsa AAAA", b"\xff" * 8 + b"{}"])
def test_a_file_that_is_no_avatar_is_not_sent_as_one(tmp_path, here, content):
    client, errors = hostile(tmp_path, "x"), []
    asked = []
    ask = client._ask
    client.sender.ask = lambda method, params: asked.append(method) or ask(method, params)
    (here / "key").write_bytes(content)
    with pytest.raises(EffigyError, match=r"key is (not an avatar|empty).* It was not sent"):
        client.call("avatar.open", {"path": str(here / "key")})
    client.request("avatar.splats", {"avatar": str(here / "key")}, None, errors.append, latest="viewport")
    until(lambda: errors, client, 10)
    client.close()
    assert "not sent" in str(errors[0]) and not asked


def test_a_head_model_that_could_not_be_sent_is_sent_with_the_next_request(tmp_path, here):
    (here / "flame.npz").write_bytes(b"head")
    command = [sys.executable, "-c", HOSTILE, json.dumps(["x", "", ""])]
    client = RemoteWorkerClient(command, path_map=PathMap(), staging=tmp_path / "fetched", head=here / "flame.npz")
    asked = []
    ask = client._ask

    def once_lost(method: str, params: dict):
        asked.append(method)
        if asked == ["file.have"]:
            raise EffigyError("lost")
        return ask(method, params)

    client.sender.ask = once_lost
    client.call("something", timeout=20.0)
    with pytest.raises(EffigyError, match="lost"):
        client.call("head.rig", timeout=20.0)
    client.call("head.rig", timeout=20.0)
    assert asked == ["file.have", "file.have", "file.open"]
    client.call("head.rig", timeout=20.0)
    client.close()
    assert len(asked) == 3


@pytest.mark.parametrize("silent_at", ["file.have", "file.open", "file.output", "file.collect", "file.get"])
def test_cancelling_does_not_wait_for_a_worker_that_has_fallen_silent(tmp_path, here, silent_at):
    client = hostile(tmp_path, f"{BASE}/x")
    client.call("hello again", timeout=20.0)
    asked = threading.Event()
    ask = client._ask

    def ask_or_none(method: str, params: dict):
        if method != silent_at:
            return ask(method, params)
        asked.set()
        return ask("silent", params)

    client.sender.ask = client.fetcher.ask = ask_or_none
    job = client.start_job("import", {"video": str(asset_path("demo.mp4")), "capture": str(here / "clip.capture")})
    until(asked.is_set, client, 20)
    job.cancel()
    assert until(lambda: job.finished, client, 20) < 1.0
    assert job.state == CANCELLED and "kept on the worker" in job.error
    assert not client._state.pending, "the client still waits for the answer"
    client.close()
