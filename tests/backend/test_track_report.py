"""Report and overlay of a track: which frames are left out and why, and where the tracked head is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from small_capture import make_small_capture

from backend.formats.capture import Capture, FrameFlag
from backend.formats.track import Track, save_track
from backend.head.model import HeadModel
from backend.service.cli import main
from backend.tracking.after.overlay import TrackedHead, write_overlay
from backend.tracking.after.report import summarise, write_report
from backend.training.frames import TrainingFrames

FLAGS = {
    3: FrameFlag.NO_FACE,
    4: FrameFlag.NO_FACE | FrameFlag.TRACK_UNSURE,
    10: FrameFlag.CUT_OFF,
    27: FrameFlag.SEVERAL_FACES,
}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Track, HeadModel]:
    folder = tmp_path_factory.mktemp("report")
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(folder))
    capture, track, model = make_small_capture(folder)
    flags, residual = track.flags.copy(), np.linspace(0.5, 1.5, track.frame_count).astype(np.float32)
    for index, flag in FLAGS.items():
        flags[index] = flag
    residual[[3, 4]], residual[7] = np.nan, 5
    track = replace(track, flags=flags, residual=residual)
    save_track(track, capture.folder / "track.npz")
    yield capture, track, model
    patch.undo()


def test_the_summary_counts_frames_and_reasons_and_knows_the_worst(tracked: tuple[Capture, Track, HeadModel]) -> None:
    summary = summarise(tracked[1])
    assert (summary.frames, summary.left_out, summary.training) == (30, 4, 21)
    assert summary.reasons == {
        "no face": 2,
        "several faces": 1,
        "face cut off by the edge of the image": 1,
        "landmarks not matched by the head": 1,
    }
    assert summary.worst[0] == 7 and not set(summary.worst) & set(FLAGS) and len(summary.worst) == 26


def test_training_leaves_every_kind_of_flagged_frame_out(tracked: tuple[Capture, Track, HeadModel]) -> None:
    capture, track, model = tracked
    seen = TrainingFrames(capture, track, model, 64)
    assert len(seen) == summarise(track).training == 21 and not set(seen.indices.tolist()) & set(FLAGS)
    for flag in FrameFlag:
        flags = np.zeros(track.frame_count, np.int32)
        flags[5] = flag
        assert 5 not in TrainingFrames(capture, replace(track, flags=flags), model, 64).indices


def test_the_report_shows_overlays_and_curves_also_where_nothing_is_wrong(
    tracked: tuple[Capture, Track, HeadModel], tmp_path: Path
) -> None:
    capture, track, model = tracked
    from PIL import Image

    write_report(capture, track, model, tmp_path / "some.png")
    write_report(capture, replace(track, flags=np.zeros_like(track.flags)), model, tmp_path / "none.png")
    some, none = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("some", "none"))
    assert some.shape[1] == none.shape[1] and some.shape[0] > none.shape[0] + 300


def test_the_mesh_lies_where_the_head_is(tracked: tuple[Capture, Track, HeadModel]) -> None:
    _, track, model = tracked
    drawn = TrackedHead(track, model).draw(np.zeros((256, 256, 3), np.uint8), 0, opacity=1.0).any(-1)
    rows, columns = np.nonzero(drawn)
    # A ball of 10 cm at 60 cm and 140 pixels of focal length in 64: 187 pixels across in 256.
    assert abs((columns.min() + columns.max()) / 2 - 128) < 6 and 170 < np.ptp(columns) < 200


def test_the_commands_write_both_and_say_what_is_left_out(
    tracked: tuple[Capture, Track, HeadModel], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = str(tracked[0].folder)
    assert main(["report", folder, str(tmp_path / "report.png")]) == 0
    assert "4 left out (2 no face" in capsys.readouterr().out
    assert main(["overlay", folder, str(tmp_path / "over.mp4")]) == 0
    with av.open(str(tmp_path / "over.mp4")) as film:
        assert film.streams.video[0].average_rate == 25 and sum(1 for _ in film.decode(video=0)) == 30
    assert main(["report", folder, str(tmp_path / "report.mp4")]) == 2
    assert main(["overlay", folder, str(tmp_path / "over.png")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "ends in .png" in errors[0] and "ends in .mp4" in errors[1]


def test_a_video_that_cannot_be_written_leaves_nothing(
    tracked: tuple[Capture, Track, HeadModel], tmp_path: Path
) -> None:
    capture, track, model = tracked
    (capture.folder / "frames" / "000029.png").rename(tmp_path / "aside.png")
    try:
        with pytest.raises(Exception, match="There is no image at .*000029"):
            write_overlay(capture, track, model, tmp_path / "over.mp4")
        assert [path.name for path in tmp_path.iterdir()] == ["aside.png"]
    finally:
        (tmp_path / "aside.png").rename(capture.folder / "frames" / "000029.png")
