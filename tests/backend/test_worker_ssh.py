"""A worker on another machine, through a real ssh: it sees none of this machine's files, and everything arrives."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from small_capture import make_small_capture
from ssh_server import can_hide_folders, ssh_server
from worker_sessions import children_of, make_client, until, untrained_avatar

from backend.assets import asset_path
from backend.avatar.avatar import load_avatar
from backend.formats.capture import load_capture, read_frame, read_head_matte
from backend.formats.track import load_track
from blender_addon.errors import EffigyError
from blender_addon.worker.client import WorkerError
from blender_addon.worker.jobs import DONE, FAILED
from blender_addon.worker.path_map import PathMap
from blender_addon.worker.remote import RemoteWorkerClient


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """The artist's folder, which the worker cannot see."""
    return tmp_path_factory.mktemp("artist")


def remote_client(server, here: Path, path_map: PathMap | None = None, hidden: bool = True) -> RemoteWorkerClient:
    if hidden and not can_hide_folders():
        pytest.skip("this user may not hide a folder from a session (unshare --mount)")
    return RemoteWorkerClient(
        server.command(here if hidden else None), path_map=path_map or PathMap(), staging=here / ".fetched"
    )


@pytest.fixture(scope="module")
def client(server, here):
    client = remote_client(server, here)
    yield client
    client.close()


@pytest.fixture(scope="module")
def capture(server, client, here) -> Path:
    """A clip imported through ssh."""
    video = here / "Kürzer: clip.mp4"
    video.write_bytes(asset_path("demo.mp4").read_bytes())
    stages: list[tuple] = []
    job = client.start_job(
        "import",
        {
            "video": str(video),
            "capture": str(here / "clip.capture"),
            "size": 128,
            "max_frames": 10,
            "landmarks_only": True,
        },
        lambda job: stages.append((job.stage, job.done, job.total, job.unit)),
    )
    client.wait(job, 120)
    assert job.state == DONE, job.error
    assert job.result["capture"] == str(here / "clip.capture")
    assert job.result["track"] == str(here / "clip.capture" / "track.npz")
    assert str(here / "clip.capture") in job.result["said"][0] and str(server.home) not in json.dumps(job.result)
    names = [stage for stage, _, _, _ in stages]
    assert "Sending footage to the worker" in names and "Fetching the capture from the worker" in names
    assert job.preview is not None
    return here / "clip.capture"


def test_a_video_becomes_a_tracked_capture_on_the_artists_disk(client, capture, here):
    loaded = load_capture(capture)
    track = load_track(capture / "track.npz")
    assert loaded.frame_count == track.frame_count == 10
    assert read_frame(loaded, 9).shape == (128, 128, 3) and read_head_matte(loaded, 9).any()
    assert not [path for path in here.rglob(".*") if path.is_file()], "nothing half-fetched, and no lock, is left"
    assert not list(here.glob(".fetched/*"))


def test_an_avatar_is_trained_posed_and_trained_again_through_ssh(client, here, tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path))
    ball = make_small_capture(here)[0].folder
    # As when an artist has a head model of their own, chosen before the worker's machine was.
    client._head = here / "ball.npz"
    avatar = here / "ball.effigy"
    params = {"capture": str(ball), "avatar": str(avatar), "size": 64, "minutes": 0.02, "device": "cpu"}
    job = client.wait(client.start_job("train", params), 120)
    assert job.state == DONE and job.result["avatar"] == str(avatar), job.error
    assert load_avatar(avatar).metrics["training_frames"] == 24
    before = client.sender.bytes_sent
    request = {"avatar": avatar, "pose": {}, "view": [0, 0, 1]}
    shown: list[dict] = []
    client.request("avatar.splats", request, shown.append, pytest.fail, latest="viewport")
    until(lambda: shown, client)
    assert client.sender.bytes_sent == before, "the worker made this file itself"
    local = make_client(tmp_path)
    try:
        assert same_splats(shown[0], local.call("avatar.splats", request))
        untrained_avatar(avatar)
        for _ in range(20):
            client.request("avatar.splats", request, shown.append, pytest.fail, latest="viewport")
        until(lambda: len(shown) > 1, client)
        assert same_splats(shown[-1], local.call("avatar.splats", request)), "the old avatar was shown"
        assert client.sender.bytes_sent - before == avatar.stat().st_size
        out = here / "posed.ply"
        client.call("avatar.export", {"subjects": [{"avatar": avatar, "pose": {}}], "view": [0, 0, 1], "path": out})
        assert out.read_bytes().startswith(b"ply")
    finally:
        local.close()


def same_splats(one: dict, other: dict) -> bool:
    return all(np.allclose(one[name], other[name], atol=1e-5) for name in other)


def test_files_below_a_shared_folder_are_neither_sent_nor_fetched(server, here, tmp_path):
    """The same folder under another path at the worker."""
    there = server.folder / "mounted"
    there.symlink_to(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(asset_path("demo.mp4").read_bytes())
    client = remote_client(server, here, PathMap(((str(tmp_path), str(there)),)), hidden=False)
    try:
        params = {"video": str(tmp_path / "clip.mp4"), "capture": str(tmp_path / "clip.capture"), "size": 64}
        job = client.start_job("import", params | {"max_frames": 2, "landmarks_only": True})
        client.wait(job, 60)
        assert job.state == DONE, job.error
        assert job.result["capture"] == str(tmp_path / "clip.capture")
        assert load_capture(tmp_path / "clip.capture").frame_count == 2
        assert client.sender.bytes_sent == client.fetcher.bytes_fetched == 0
    finally:
        client.close()


def test_a_missing_file_and_a_worker_error_are_told_with_the_artists_paths(client, here):
    with pytest.raises(EffigyError, match="There is nothing at"):
        client.call("avatar.open", {"path": here / "nowhere.effigy"})
    damaged = here / "damaged.effigy"
    # The header of an avatar, so that it is sent, without anything that an avatar consists of.
    header = json.dumps({"__metadata__": {"effigy": "{}"}}).encode()
    damaged.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WorkerError) as refused:
        client.call("avatar.open", {"path": damaged})
    assert str(damaged) in str(refused.value) and str(refused.value).count("damaged.effigy") == 1


def test_a_lost_connection_is_told_with_a_sentence_and_the_next_request_connects_again(server, here):
    client = remote_client(server, here)
    (here / "long.mp4").touch()
    os.truncate(here / "long.mp4", 300 * 10**6)
    try:
        job = client.start_job("import", {"video": str(here / "long.mp4"), "capture": str(here / "long.capture")})
        until(lambda: job.stage.startswith("Sending") and job.done > 10, client)
        for session in children_of(server.process.pid):
            os.kill(session, signal.SIGKILL)
        until(lambda: job.finished, client)
        assert job.state == FAILED and "connection to the worker's machine was lost" in job.error, job.error
        assert "it goes on from there" in job.error
        again = client.start_job("import", {"video": str(here / "long.mp4"), "capture": str(here / "long.capture")})
        until(lambda: again.stage.startswith("Sending"), client)
        assert again.done >= 9
        again.cancel()
        client.wait(again, 30)
    finally:
        client.close()
        (here / "long.mp4").unlink()
