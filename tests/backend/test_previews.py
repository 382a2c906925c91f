"""The pictures that a job's panel shows of a capture and of a track."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_capture import make_small_capture

from backend.formats.capture import Capture, read_frame, save_capture
from backend.formats.track import Track
from backend.head.model import HeadModel
from backend.progress import Progress
from backend.service.previews import (
    LANDMARK_COLOUR,
    SIZE,
    WorkPreview,
    _middle_frame,
    send_capture_preview,
    send_track_preview,
)
from backend.service.requests import CaptureRequest, TrackRequest
from backend.tracking.after.overlay import TrackedHead


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Track, HeadModel]:
    folder = tmp_path_factory.mktemp("capture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFIGY_USER", str(folder / "user"))
        return make_small_capture(folder, frames=6)


class Shown(Progress):
    def __init__(self) -> None:
        self.images: list[np.ndarray] = []

    def preview(self, image: np.ndarray) -> None:
        self.images.append(image)


def test_the_newest_frame_that_is_surely_complete_is_shown_while_a_capture_is_made(tmp_path: Path) -> None:
    # A name that would be a pattern, and a capture of another name that is made at the same time.
    preview = WorkPreview(CaptureRequest(Path("new.mp4"), tmp_path / "take [1].capture"))
    for folder, levels in (
        ("take [1].effigy-a1b2c3d4", (200, 100, 50)),
        ("take 1.effigy-a1b2c3d4", (0, 0, 0)),
        ("take [1]", (0, 0, 0)),
    ):
        frames = tmp_path / f".{folder}.capture" / "frames"
        frames.mkdir(parents=True)
        for index, level in enumerate(levels):
            cv2.imwrite(str(frames / f"{index:06d}.jpg"), np.full((16, 16, 3), (level, 0, 0), np.uint8))
    shown = preview.draw(1, 3)
    assert shown is not None and shown.shape == (SIZE, SIZE, 3) and shown.dtype == np.uint8
    assert np.abs(shown.astype(int) - (0, 0, 100)).max() < 12, "the picture is RGB"


def test_a_picture_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    frames = tmp_path / ".new.a1b2.capture" / "frames"
    frames.mkdir(parents=True)
    for index in range(2):
        (frames / f"{index:06d}.jpg").write_bytes(b"half")
    assert WorkPreview(CaptureRequest(Path("new.mp4"), tmp_path / "new.capture")).draw(1, 3) is None
    assert WorkPreview(TrackRequest((tmp_path / "gone.capture",))).draw(1, 3) is None


def test_tracking_shows_the_frame_that_it_has_come_to_with_its_landmarks(
    tracked: tuple[Capture, Track, HeadModel], tmp_path: Path
) -> None:
    capture = tracked[0]
    landmarks = capture.landmarks.copy()
    landmarks[3, 7] = (20.3125, 40.3125, 0.0)
    landmarks[3, 8] = (30.5, np.nan, 0.0)
    copy = replace(capture, folder=tmp_path / "marked.capture", landmarks=landmarks)
    (copy.folder / "frames").mkdir(parents=True)
    for index in range(capture.frame_count):
        copy.frame_path(index).write_bytes(capture.frame_path(index).read_bytes())
    save_capture(copy)
    preview = WorkPreview(TrackRequest((copy.folder,)))
    for done, total, index in ((0, 60, 0), (35, 60, 3), (30, 60, 3), (60, 60, 5), (0, 0, 0)):
        plain, shown = read_frame(capture, index, SIZE), preview.draw(done, total)
        assert shown is not None
        changed = np.argwhere((shown != plain).any(2))
        if index == 3:
            # 8 pixels for each of the capture's, and the first pixel's centre is at 0.5: 40.3125 is pixel 322.
            assert changed.mean(0) == pytest.approx((322, 162), abs=0.6) and len(changed) < 30
            assert tuple(shown[322, 162]) == LANDMARK_COLOUR
        else:
            assert not len(changed)


def test_a_finished_capture_is_shown_by_a_good_frame_from_its_middle(
    tracked: tuple[Capture, Track, HeadModel],
) -> None:
    capture, shown = tracked[0], Shown()
    for flags, expected in (([0] * 6, 3), ([1, 1, 1, 1, 0, 0], 5), ([0, 1, 1, 1, 1, 1], 0), ([1] * 6, 3)):
        flagged = replace(capture, flags=np.array(flags, np.int32))
        assert _middle_frame(flagged) == expected
        send_capture_preview(flagged, shown)
        assert np.array_equal(shown.images[-1], read_frame(capture, expected, SIZE))


def test_a_finished_track_is_shown_over_the_same_frame(tracked: tuple[Capture, Track, HeadModel]) -> None:
    capture, track, model = tracked
    shown = Shown()
    send_track_preview(capture, track, model, shown)
    expected = TrackedHead(track, model).draw(read_frame(capture, 3, SIZE), 3)
    assert np.array_equal(shown.images[0], expected)
    assert (expected != read_frame(capture, 3, SIZE)).any()


def test_a_preview_that_fails_does_not_fail_the_work(
    tracked: tuple[Capture, Track, HeadModel], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown()
    send_capture_preview(replace(tracked[0], folder=Path("/nowhere")), shown)
    assert not shown.images and "Traceback" in capsys.readouterr().err


def test_what_the_worker_says_of_a_capture_and_a_track(
    tracked: tuple[Capture, Track, HeadModel], tmp_path: Path
) -> None:
    from backend.errors import EffigyError
    from backend.service.parameters import Parameters
    from backend.service.rig_data import CAPTURE_FIELDS, read_capture, read_track

    capture, track, _ = tracked
    told = read_capture(Parameters({"path": str(capture.folder)}, "capture.read"))
    assert set(told) == {*CAPTURE_FIELDS, "frame_count", "training_count", "summary"}
    assert told["frame_count"] == 6 and told["training_count"] == capture.training_count == 5
    assert np.array_equal(told["frame_times"], capture.frame_times) and told["source_name"] == "ball.mp4"
    assert told["summary"] == json.loads((capture.folder / "capture.json").read_text("utf-8"))
    told = read_track(Parameters({"path": str(capture.folder / "track.npz")}, "track.read"))
    assert told["frame_count"] == 6 and np.array_equal(told["rotations"], track.rotations)
    assert None not in [value for value in told.values() if not isinstance(value, np.ndarray)]
    assert {name for name, value in vars(track).items() if value is not None} <= set(told)
    for read in (read_capture, read_track):
        with pytest.raises(EffigyError, match="must be a full path"):
            read(Parameters({"path": "ball.capture"}, "capture.read"))
