"""Jobs at the worker: importing the demo clip, training, stopping, and the worker's death in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_capture import make_small_capture
from worker_sessions import children_of, make_client, runs, until

from backend.assets import asset_path
from backend.avatar.avatar import load_avatar
from backend.formats.capture import read_frame
from backend.service.job_process import ChannelProgress
from backend.service.job_specs import read_job
from backend.service.previews import WorkPreview
from backend.service.requests import CaptureRequest, TrackRequest, TrainRequest
from backend.service.stages import STAGES
from backend.training.checkpoint import checkpoint_path
from blender_addon.worker.jobs import CANCELLED, DONE, FAILED


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def shared_client(user):
    client = make_client(user)
    yield client
    client.close()


@pytest.fixture
def client(shared_client):
    """The shared client of this file. After a test has killed its worker, the client starts another."""
    yield shared_client
    for job in shared_client.running_jobs:
        job.cancel()
        shared_client.wait(job)


@pytest.fixture
def trained_on(tmp_path, user, monkeypatch) -> Path:
    """A capture that trains in seconds."""
    monkeypatch.setenv("EFFIGY_USER", str(user))
    return make_small_capture(tmp_path)[0].folder


def clip_into(folder: Path) -> dict[str, Path]:
    return {"video": asset_path("demo.mp4"), "capture": folder / "clip.capture"}


def hidden_in(folder: Path) -> list[str]:
    """The hidden files of unfinished writes."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_importing_a_video_makes_a_tracked_capture(client, tmp_path):
    """Meanwhile it reports progress and previews, and other requests are answered."""
    stages, bar, steps = [], [], []

    def watch(job) -> None:
        stages.append(job.stage)
        if job.whole:
            bar.append(job.fraction)
            steps.append((job.whole.step, job.whole.steps, job.seconds_left))

    job = client.start_job(
        "import", clip_into(tmp_path) | {"size": 128, "max_frames": 4, "landmarks_only": True}, watch
    )
    assert client.call("head.rig")["vertices"].shape[1] == 3 and not job.finished
    client.wait(job, 60)
    assert job.state == DONE, job.error
    assert job.result["frames"] == 4 and job.result["size"] == 128 and len(job.result["said"]) == 2
    assert {STAGES[name] for name in ("finding the head", "cropping", "head mattes")} <= set(stages)
    assert STAGES["skin"] not in stages
    # One bar over all stages; the last thing that is reported is near its end.
    assert bar == sorted(bar) and bar[0] < 0.2 and bar[-1] > 0.9 and steps[-1][2] < 5
    assert list(dict.fromkeys(step[:2] for step in steps)) == [(number, 5) for number in range(1, 6)]
    assert job.preview_count >= 2 and job.preview.ndim == 3 and job.preview.shape[2] == 3
    track = client.call("track.read", {"path": job.result["track"]})
    capture = client.call("capture.read", {"path": job.result["capture"]})
    assert track["rotations"].shape == (4, 5, 3) and track["fps"] == capture["fps"] and track["frame_count"] == 4
    assert capture["summary"]["source_size"][0] > 0 and len(capture["crop"]) == 3
    assert list(capture["frame_numbers"]) == [0, 1, 2, 3]
    assert not any(list(Path(folder).iterdir()) for folder in client.array_folders)


@pytest.mark.parametrize("kind", ["import", "track"])
def test_a_job_tracks_by_landmarks_only_where_that_is_asked_for(kind, tmp_path):
    capture = tmp_path / "x.capture"
    params = {"capture": str(capture)} | ({"video": str(tmp_path / "x.mp4")} if kind == "import" else {})
    for asked, expected in (({}, False), ({"landmarks_only": False}, False), ({"landmarks_only": True}, True)):
        job = read_job(kind, params | asked)
        assert job.output == capture
        assert job.requests[-1] == TrackRequest(captures=(capture,), landmarks_only=expected)


def test_an_import_shows_the_newest_frame_and_then_the_landmarks(tmp_path):
    capture = make_small_capture(tmp_path)[0]
    request = CaptureRequest(video=tmp_path / "new.mp4", capture=tmp_path / "new.capture")
    assert WorkPreview(request).draw(1, 10) is None
    growing = tmp_path / ".new.effigy-a1b2c3d4.capture" / "frames"
    growing.mkdir(parents=True)
    for index in range(2):
        (growing / f"{index:06d}.jpg").write_bytes(capture.frame_path(index).read_bytes())
    cropped = WorkPreview(request).draw(2, 10)
    assert cropped.dtype == np.uint8 and cropped.shape[2] == 3
    last = capture.frame_count - 1
    tracked = WorkPreview(TrackRequest(captures=(capture.folder,))).draw(10, 10)
    plain = read_frame(capture, last, len(tracked))
    assert tracked.shape == plain.shape and (tracked != plain).any() == np.isfinite(capture.landmarks[last]).any()
    training = TrainRequest(captures=(capture.folder,), avatar=tmp_path / "x.effigy")
    assert WorkPreview(training).draw(1, 10) is None


def test_drawn_previews_are_rare_and_do_not_delay_a_commands_own_preview():
    sent = []
    progress = ChannelProgress(SimpleNamespace(send=sent.append))
    progress.draw_preview = lambda done, total: np.full((2, 2, 3), done, np.uint8)
    for done in range(1, 4):
        progress.update(f"stage {done}", done, 3)
    progress.preview(np.zeros((2, 2, 3), np.uint8))
    assert [int(event["image"].max()) for event in sent if event["event"] == "preview"] == [1, 0]


def test_a_stopped_import_leaves_no_unfinished_file(client, tmp_path):
    job = client.start_job("import", clip_into(tmp_path) | {"size": 64})
    until(lambda: job.stage == STAGES["cropping"] and job.done > 2, client)
    job.cancel()
    client.wait(job, 40)
    assert job.state == CANCELLED and "kept" in job.error
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_is_stopped_at_once_stops(client, tmp_path):
    job = client.start_job("import", clip_into(tmp_path))
    job.cancel()
    client.wait(job, 40)
    assert job.state == CANCELLED and list(tmp_path.iterdir()) == []


def test_a_stopped_training_is_resumed(client, tmp_path, trained_on):
    """A second training of the same avatar is refused. Stopping leaves a checkpoint, from which resuming continues."""
    order = {"capture": trained_on, "avatar": tmp_path / "ball.effigy", "size": 64, "minutes": 0.06, "device": "cpu"}
    job = client.start_job("train", order)
    until(lambda: job.stage == STAGES["Training"] and job.metrics.get("psnr"), client)
    second = client.start_job("train", order)
    until(lambda: second.finished, client)
    assert second.state == FAILED and "Another job is writing" in second.error
    job.cancel()
    client.wait(job, 40)
    assert job.state == CANCELLED and checkpoint_path(order["avatar"]).is_file() and not order["avatar"].exists()
    again = client.start_job("train", order | {"resume": True})
    stages = []
    again.on_change = lambda job: stages.append(job.stage)
    client.wait(again, 60)
    assert again.state == DONE, again.error
    assert STAGES["Warm-up"] not in stages and len(again.history) > 1
    avatar = load_avatar(order["avatar"])
    assert avatar.metrics["training_frames"] == 24 and not checkpoint_path(order["avatar"]).exists()


def test_a_training_keeps_its_checkpoint_when_the_worker_is_killed(client, tmp_path, trained_on):
    order = {"capture": trained_on, "avatar": tmp_path / "ball.effigy", "size": 64, "minutes": 5, "device": "cpu"}
    job = client.start_job("train", order)
    until(lambda: job.stage == STAGES["Warm-up"] and job.done > 0, client)
    children = children_of(client.pid)
    assert len(children) == 1
    os.kill(client.pid, signal.SIGKILL)
    assert until(lambda: job.finished, client) < 1.0
    assert job.state == FAILED and "killed" in job.error and "kept" in job.error
    until(lambda: not runs(children[0]), seconds=12)
    assert checkpoint_path(order["avatar"]).is_file() and not hidden_in(tmp_path)
    assert client.call("head.rig")["head"]["name"]


def test_closing_ends_the_jobs_and_leaves_no_unfinished_file(user, tmp_path):
    closed = make_client(user)
    job = closed.start_job("import", clip_into(tmp_path) | {"size": 64})
    until(lambda: job.stage == STAGES["cropping"], closed)
    children = children_of(closed.pid)
    closed.close()
    until(lambda: not runs(children[0]), seconds=12)
    assert list(tmp_path.iterdir()) == []


def test_a_job_whose_process_is_killed_fails_with_a_sentence_and_the_worker_keeps_running(client, tmp_path):
    job = client.start_job("import", clip_into(tmp_path) | {"size": 64})
    until(lambda: job.stage == STAGES["cropping"], client)
    worker = client.pid
    os.kill(children_of(worker)[0], signal.SIGKILL)
    assert until(lambda: job.finished, client) < 1.0
    assert job.state == FAILED and "ended unexpectedly (it was killed" in job.error
    assert client.call("head.rig") and client.pid == worker


@pytest.mark.parametrize(
    ("kind", "params", "sentence"),
    [
        ("sing", {}, "there is no kind “sing”; choose one of import, track"),
        ("import", {"capture": "/x.capture"}, "import needs “video”"),
        ("import", {"video": "clip.mp4", "capture": "/x.capture"}, "video must be a full path"),
        ("import", {"video": "/nowhere.mp4", "capture": "/x.capture", "sizes": 3}, "has no parameter “sizes”"),
        (
            "track",
            {"capture": "/x.capture", "landmarks_only": "yes"},
            "landmarks_only must be true or false, but is “yes”",
        ),
        ("train", {"capture": "/x", "avatar": "/y", "preset": "best"}, "there is no preset “best”"),
        ("train", {"capture": "/x", "avatar": "/y", "minutes": "ten"}, "minutes must be a number, but is “ten”"),
        (
            "train",
            {"capture": "/nowhere.capture", "avatar": "{folder}/a.effigy"},
            "There is no capture at /nowhere",
        ),
    ],
)
def test_bad_orders_fail_with_a_sentence(client, tmp_path, kind, params, sentence):
    params = {name: str(value).replace("{folder}", str(tmp_path)) for name, value in params.items()}
    job = client.start_job(kind, params)
    client.wait(job, 40)
    assert job.state == FAILED and sentence in job.error, job.error
