"""Reports and sheets look as they did: each is compared with a picture that was looked at and stored.

After a change that is meant, `EFFIGY_NEW_PICTURES=1 python3 build.py test tests/backend/test_pictures.py` stores them;
look at them before they are committed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_capture import make_small_capture

from backend.errors import Cancelled, EffigyError
from backend.formats.capture import Capture, FrameFlag
from backend.formats.track import Track
from backend.head.model import HeadModel
from backend.progress import Progress
from backend.tracking.after.overlay import (
    TrackedHead,
    captioned,
    draw_landmarks,
    overlaid,
    tracked_landmarks,
    write_overlay,
)
from backend.tracking.after.report import write_report
from backend.training.contact_sheet import SheetRow, contact_sheet, error_heat

PICTURES = Path(__file__).parent / "pictures"
SHRUNK = 3
"""The stored pictures are smaller by this factor."""


class Stop(Progress):
    def cancelled(self) -> bool:
        return True


def assert_looks_as_stored(name: str, image: np.ndarray) -> None:
    """`image` (H, W, 3) uint8 RGB differs from the stored picture at ten pixels at most: rasterising and anti-aliasing
    may differ by a level or two between processors, and text that has moved by a pixel differs by more.
    """
    height, width = (side - side % SHRUNK for side in image.shape[:2])
    small = image[:height, :width].reshape(height // SHRUNK, SHRUNK, width // SHRUNK, SHRUNK, 3).mean((1, 3))
    small = np.rint(small).astype(np.uint8)
    path = PICTURES / f"{name}.png"
    if os.environ.get("EFFIGY_NEW_PICTURES"):
        cv2.imwrite(str(path), small[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 9))
    stored = cv2.imread(str(path))[..., ::-1]
    assert small.shape == stored.shape
    differs = np.abs(small.astype(int) - stored).max(2) > 12
    assert differs.sum() <= 10, f"{name}: {differs.sum()} pixels differ from {path}"


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Capture, Track, HeadModel]]:
    """A ball-shaped head in 30 frames, with flags of every kind, an error that varies, and uncertainties."""
    folder = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFIGY_USER", str(folder))
        capture, track, model = make_small_capture(folder)
        flags, residual = np.zeros_like(track.flags), np.linspace(0.5, 1.5, track.frame_count).astype(np.float32)
        flags[[3, 4]], flags[9], flags[12] = FrameFlag.NO_FACE, FrameFlag.CUT_OFF, FrameFlag.TRACK_UNSURE
        flags[20], flags[21] = FrameFlag.SEVERAL_FACES | FrameFlag.CUT_OFF, FrameFlag.SEVERAL_FACES
        residual[[3, 4]], residual[7] = np.nan, 5
        parameters = track.expression.shape[1] + 13
        sigma = np.deg2rad(np.linspace(0.5, 6, track.frame_count * parameters)).reshape(-1, parameters)
        yield capture, replace(track, flags=flags, residual=residual, sigma=sigma.astype(np.float32)), model


def test_the_report_of_a_track(tracked: tuple[Capture, Track, HeadModel], tmp_path: Path) -> None:
    write_report(*tracked, tmp_path / "report.png")
    assert_looks_as_stored("report", cv2.imread(str(tmp_path / "report.png"))[..., ::-1])


def test_a_frame_of_the_overlay_with_its_caption(tracked: tuple[Capture, Track, HeadModel]) -> None:
    capture, track, model = tracked
    head, landmarks = TrackedHead(track, model), tracked_landmarks(track, model)
    frames = [captioned(overlaid(capture, head, landmarks, index, 256), index, track) for index in (7, 20)]
    random = np.random.default_rng(2)
    detected, found = random.uniform(20, 236, (2, 12, 2))
    detected[3], found[5] = np.nan, np.nan
    points = draw_landmarks(np.full((256, 256, 3), 90, np.uint8), detected, found)
    assert_looks_as_stored("overlay", np.concatenate([*frames, points], 1))


def test_the_contact_sheet_of_an_evaluation() -> None:
    y, x = np.mgrid[:300, :300] / 300
    fine = np.random.default_rng(1).uniform(0.4, 1, (300, 300, 1))
    truth = (255 * fine * np.stack((x, y, 0.5 * x + 0.3), 2)).astype(np.uint8)
    image = np.clip(truth + 120 * np.sin(8 * x)[..., None] * y[..., None], 0, 255).astype(np.uint8)
    heat = error_heat(image, truth)
    rows = [
        SheetRow("worst", ("frame 12", "21.4 dB", "0.71 ssim"), (truth, image, heat)),
        SheetRow("best", ("frame 3",), (truth[::4, ::4], image[::4, ::4], heat[::4, ::4])),
    ]
    sheet = contact_sheet("An avatar", "on 20 unseen frames", ("true", "rendered", "error"), rows)
    assert_looks_as_stored("contact_sheet", sheet)


def test_a_report_and_an_overlay_that_are_cancelled_leave_nothing(
    tracked: tuple[Capture, Track, HeadModel], tmp_path: Path
) -> None:
    for write, name in ((write_report, "report.png"), (write_overlay, "over.mp4")):
        with pytest.raises(Cancelled):
            write(*tracked, tmp_path / name, progress=Stop())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"size": 128}, {"frame_count": 29}])
def test_a_track_of_another_capture_is_refused(
    change: dict[str, int], tracked: tuple[Capture, Track, HeadModel], tmp_path: Path
) -> None:
    capture, track, model = tracked
    if "frame_count" in change:
        names = ("expression", "rotations", "head_to_camera", "residual", "flags", "sigma")
        track = replace(track, **{name: getattr(track, name)[:29] for name in names})
    else:
        track = replace(track, size=128)
    with pytest.raises(EffigyError, match="track it again"):
        write_report(capture, track, model, tmp_path / "report.png")
