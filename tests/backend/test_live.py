"""Live through a camera: a film in its place, the One-Euro filter, cameras that are lost, and the messages of faces."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from backend.errors import EffigyError
from backend.footage.detector import SCORE_NAMES
from backend.live import camera, watch
from backend.live.camera import Camera, Shot, open_camera
from backend.live.one_euro import OneEuro
from backend.progress import Progress
from backend.service.commands import run
from backend.service.requests import LiveRequest
from backend.service.sentences import describe
from blender_addon.worker.messages import JobFace, NoMessage, read_message

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo.mp4"


class Faces(Progress):
    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def face(self, *seen) -> None:
        self.seen.append(seen)


def test_a_film_in_place_of_a_camera_plays_at_its_own_rate_and_shows_a_face_in_each_frame() -> None:
    faces = Faces()
    result = run(LiveRequest(str(DEMO), seconds=1.0), faces)
    times = np.array([seen[0] for seen in faces.seen])
    assert result.faces == result.frames == len(faces.seen)
    assert result.frames + result.passed_over == pytest.approx(25, abs=3)
    assert np.median(np.diff(times)) == pytest.approx(1 / 25, abs=0.005)
    for _, age, channels, head in faces.seen:
        assert 0 < age < 1 and channels.shape == (52,) and channels.min() >= 0 and channels.max() <= 1
        assert head.shape == (3,) and np.linalg.norm(head) < 1
    assert "detector" in describe(result)


def test_the_filter_steadies_a_still_signal_and_follows_a_fast_one() -> None:
    random = np.random.default_rng(0)
    times = np.arange(300) / 30
    noisy = 0.3 + random.normal(0, 0.01, 300)
    still = OneEuro(watch.CHANNEL_CUTOFF, watch.CHANNEL_SLOPE)
    smooth = np.array([still(np.array([value]), when)[0] for value, when in zip(noisy, times, strict=True)])
    assert smooth[60:].std() < 0.6 * noisy[60:].std()
    blink = OneEuro(watch.CHANNEL_CUTOFF, watch.CHANNEL_SLOPE)
    lids = np.concatenate((np.zeros(30), (0.25, 0.5, 0.75, 1.0), np.ones(3)))
    followed = [blink(np.array([value]), when)[0] for value, when in zip(lids, times, strict=False)]
    assert followed[33] > 0.6 and followed[35] > 0.85
    blink.forget()
    assert blink(np.array([0.2]), 99.0)[0] == 0.2


def frames(count: int, seconds: float, first: int = 0) -> Generator[Shot, None, None]:
    for number in range(first, first + count):
        time.sleep(seconds)
        yield Shot(np.full((48, 64, 3), number, np.uint8), time.monotonic(), 0.0)


def test_whoever_is_slow_gets_the_newest_frame() -> None:
    asked, given = threading.Event(), threading.Event()

    def pictures() -> Generator[Shot, None, None]:
        yield from frames(1, 0)
        asked.wait(30)
        yield from frames(49, 0, first=1)
        given.set()

    with closing(Camera(pictures())) as made:
        assert made.newest().image[0, 0, 0] == 0
        asked.set()
        assert given.wait(30)
        assert made.newest().image[0, 0, 0] == 49 and made.passed_over == 48
        assert made.newest() is None


def test_a_camera_that_stops_giving_pictures_is_lost_with_a_sentence(monkeypatch) -> None:
    monkeypatch.setattr(camera, "LOST_SECONDS", 0.05)

    def stalling() -> Generator[Shot, None, None]:
        yield from frames(1, 0)
        time.sleep(0.5)

    with closing(Camera(stalling())) as made:
        assert made.newest() is not None
        with pytest.raises(EffigyError, match="no picture for 0.05 s"):
            made.newest()


@pytest.mark.parametrize(("source", "sentence"), [("99", "Camera 99 cannot be opened"), ("gone.mp4", "gone.mp4")])
def test_a_camera_that_is_not_there_gets_a_sentence(source, sentence) -> None:
    with open_camera(source) as made, pytest.raises(EffigyError, match=sentence):
        made.newest()


def test_frames_without_a_face_are_reported_as_such(monkeypatch) -> None:
    @contextmanager
    def dark(_: str) -> Iterator[Camera]:
        with closing(Camera(frames(3, 0.01))) as made:
            yield made

    monkeypatch.setattr(watch, "open_camera", dark)
    seen = []
    made = watch.watch("0", seen.append, lambda _: True)
    assert made.faces == 0 and made.frames == len(seen) > 0 and seen[0].channels is None


def message(**fields) -> bytes:
    given = {"job": "job-1", "time": 2.5, "age": 0.01, "channels": [0.5] * 52, "head": [0.0, 0.1, 0.0]} | fields
    return json.dumps({"jsonrpc": "2.0", "method": "job.face", "params": given}).encode()


def test_a_face_is_read_from_the_workers_message_and_damaged_ones_are_refused() -> None:
    # The client has no list of the detector's names.
    assert list(SCORE_NAMES) == sorted(SCORE_NAMES)
    read = read_message(message(), None).event
    assert read == JobFace(2.5, 0.01, (0.5,) * 52, (0.0, 0.1, 0.0))
    assert read_message(message(channels=None), None).event.channels is None
    for fields in (
        {"channels": [0.5] * 51},
        {"channels": ["a"] * 52},
        {"head": [0.0, 0.1]},
        {"head": None},
        {"time": "now"},
        {"time": None},
    ):
        with pytest.raises(NoMessage):
            read_message(message(**fields), None)
