"""The line that sums a capture up for an artist, and the measurements that it is made of."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from test_footage_crop import face

from backend.assets import asset_path
from backend.footage.decode import FootageInfo, read_frames
from backend.footage.detector import Face, FaceDetector
from backend.footage.face_view import FaceView, Outside, _blur_of, _grey_face, view_of
from backend.footage.findings import BLURRED, findings_of
from backend.footage.picture_area import Area
from backend.footage.sequence import ImageSequence


def view(**changes: Any) -> FaceView:
    return replace(FaceView(width=200.0, yaw=0.0, blur=0.4, light=120.0, outside=Outside.NOTHING), **changes)


def line(views: list[FaceView | None], **changes: Any) -> str:
    """The findings of a clip at 30 frames a second that shows these."""
    count = len(views)
    flags = np.array([1 if each is None else 4 if each.cuts_face else 0 for each in views], np.int32)
    given = {"frame_times": np.arange(count) / 30, "frame_numbers": np.arange(count), "flags": flags}
    info = FootageInfo(Path("a.mp4"), 1920, 1080, Fraction(30), count, count / 30, "sdr")
    info = replace(info, **{name: value for name, value in changes.items() if hasattr(info, name)})
    capture: Any = SimpleNamespace(fps=info.fps, **{**given, **{k: v for k, v in changes.items() if k in given}})
    return findings_of(capture, views, info, changes.get("area", Area(0, 0, 1920, 1080))).line


TURNING = [view(yaw=float(angle)) for angle in np.linspace(-35, 55, 300)]


def test_a_good_clip_is_called_good_with_its_figures() -> None:
    assert line(TURNING) == (
        "300 of 300 frames with a face, head turned up to 53° left and 33° right, face 200 pixels wide: "
        "good for training."
    )


@pytest.mark.parametrize(
    ("views", "changes", "words"),
    [
        ([*TURNING, *[None] * 9], {}, "300 of 309 frames with a face (9 without, 10.0–10.3 s)"),
        ([None, *TURNING, None, *TURNING, None], {}, "(3 without, 0.0, 10.0 s and elsewhere)"),
        ([*TURNING, *[view(outside=Outside.CHIN)] * 12], {}, "chin outside the picture in 12, "),
        ([view(outside=Outside.CHIN)] * 40, {}, "because the chin is outside the picture in all frames: use the uncro"),
        (
            [*TURNING, view(outside=Outside.FOREHEAD), view(outside=Outside.HAIR)],
            {},
            "face, forehead outside the picture in 1, head",
        ),
        ([view(outside=Outside.SIDE)] * 40, {}, "the side of the face is outside the picture in all frames"),
        ([view(outside=Outside.CHIN)] * 40, {}, "The rig and the performance can be used."),
        ([replace(each, outside=Outside.HAIR) for each in TURNING], {}, "but the hair ends at the upper edge"),
        (TURNING[:40], {}, "only 40 frames show the whole face of one person"),
        (TURNING[:140], {}, "enough for training, but 140 good frames are few"),
        ([view()] * 300, {}, "enough for training, but the head hardly turns"),
        ([replace(each, width=50.0) for each in TURNING], {}, "too little for training, because the face is only 50"),
        ([replace(each, width=90.0) for each in TURNING], {}, "but the face is small"),
        ([replace(each, blur=0.7) for each in TURNING], {}, "because most frames are blurred"),
        ([*[replace(each, blur=0.7) for each in TURNING[:15]], *TURNING[15:]], {}, "blurred in 5 %: good"),
        ([replace(each, light=20.0) for each in TURNING], {}, "underexposed: enough for training, but with so little"),
        ([replace(each, light=7.0) for each in TURNING], {}, "too little for training, because the face is nearly"),
        ([view()], {"still": True}, "a face, face 200 pixels wide: enough for the preset Instant, but"),
        (TURNING, {"area": Area(0, 140, 1920, 940)}, "letterboxed"),
        (TURNING, {"area": Area(400, 0, 1520, 1080)}, "pillarboxed"),
        (TURNING, {"area": Area(400, 140, 1520, 940)}, "bars on all sides"),
        (TURNING, {"field_order": "tff", "turn": 180}, "interlaced (made into whole images), turned by 180°"),
    ],
)
def test_what_a_clip_lacks_is_said(views: list[FaceView | None], changes: dict[str, Any], words: str) -> None:
    assert words in line(views, **changes)


def test_rates_that_fall_gaps_and_jitter_are_told_apart() -> None:
    falling = np.concatenate([np.arange(150) / 30, 5 + np.arange(150) / 15])
    assert "rate falls from 30 to 15" in line(TURNING, frame_times=falling)
    gap = np.arange(300) / 30 + 3.0 * (np.arange(300) >= 30)
    assert "no frames from 1.0 to 4.0 s" in line(TURNING, frame_times=gap)
    assert "rate" not in line(TURNING, frame_times=gap).replace("training", "")
    jitter = np.cumsum([0] + [1 / 60 if index % 2 else 1 / 20 for index in range(299)])
    assert "rate varies" in line(TURNING, frame_times=jitter)


def test_places_in_a_sequence_are_numbers_of_its_images() -> None:
    sequence = ImageSequence(Path(), "shot.####.png", ("",) * 310, tuple(range(1001, 1311)))
    numbered = {"sequence": sequence, "frame_numbers": np.arange(1000, 1310)}
    assert "(10 without, 1001–1004, 1305–1310)," in line([*[None] * 4, *TURNING, *[None] * 6], **numbered)


def test_what_lies_outside_the_picture_is_named_by_its_part() -> None:
    """A face of 100 pixels in a crop of 256 at scale 1, whose picture is cut at each side."""
    found = face(128, 128, 100)
    square, matte = np.zeros((256, 256, 3), np.uint8), np.zeros((256, 256), np.uint8)

    def outside(area: Area, covered: np.ndarray = matte) -> Outside:
        return view_of(found, square, covered, (0.0, 0.0, 256.0), area).outside

    assert outside(Area(0, 0, 256, 256)) == Outside.NOTHING
    assert outside(Area(0, 0, 256, 170)) == Outside.CHIN
    assert outside(Area(0, 90, 256, 256)) == Outside.FOREHEAD
    assert outside(Area(90, 0, 256, 256)) == outside(Area(0, 0, 170, 256)) == Outside.SIDE
    assert outside(Area(0, 0, 256, 177)) == Outside.NOTHING, "the detector errs by a pixel"
    square[:, :, 1] = 200
    assert 100 < view_of(found, square, matte, (0.0, 0.0, 256.0), Area(0, 0, 256, 256)).light < 130, (
        "of the green alone"
    )
    hair = matte.copy()
    hair[:, 100:140] = 255
    assert outside(Area(0, 0, 256, 256), hair) == Outside.HAIR
    hair[:20] = 0
    assert outside(Area(0, 0, 256, 256), hair) == Outside.NOTHING
    assert outside(Area(0, 30, 256, 256), hair) == Outside.HAIR


def test_a_head_is_turned_to_the_persons_own_left() -> None:
    """In the image that is to the right. Here it is to the person's right, and in the mirror to the left."""
    (frame,) = read_frames(asset_path("demo.mp4"), first_frame=221, max_frames=1)
    whole = Area(0, 0, frame.image.shape[1], frame.image.shape[0])
    yaws = []
    with closing(FaceDetector()) as detector:
        for image in (frame.image, np.ascontiguousarray(frame.image[:, ::-1])):
            (found,) = detector.detect(image)
            matte = np.zeros(image.shape[:2], np.uint8)
            yaws.append(view_of(found, image, matte, (0.0, 0.0, float(len(image))), whole).yaw)
    assert yaws == pytest.approx([-32, 32], abs=4)


def test_blur_is_measured_beside_the_faces_width() -> None:
    sharp = cv2.resize(next(read_frames(asset_path("demo.mp4"))).image, (320, 320), interpolation=cv2.INTER_AREA)
    centre = face(160, 150, 130)

    def blur(image: np.ndarray, scale: float = 1.0) -> float:
        sized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return _blur_of(_grey_face(sized, Face(centre.landmarks * scale, centre.scores, centre.pose)))

    assert blur(sharp) < 0.55
    soft = [blur(cv2.GaussianBlur(sharp, (0, 0), sigma)) for sigma in (1.0, 2.0, 3.0)]
    assert blur(sharp) < soft[0] < soft[1] < soft[2] and soft[2] > BLURRED
    # Motion blurs one direction only, which is enough.
    assert blur(cv2.blur(sharp, (13, 1))) > BLURRED and blur(cv2.blur(sharp, (1, 13))) > BLURRED
    assert abs(blur(cv2.GaussianBlur(sharp, (0, 0), 3.0), 0.7) - soft[2]) < 0.04
