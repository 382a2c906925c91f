"""Captures from footage, real where it is present and else the bundled clip: crop, landmarks, mattes and flags.

A failed capture leaves no files.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from backend.assets import asset_path
from backend.errors import Cancelled, EffigyError
from backend.footage.build import _expected_frames, describe_flags, make_capture
from backend.footage.crop import cut_square
from backend.footage.decode import probe, read_frames
from backend.footage.detector import SCORE_NAMES, FaceDetector
from backend.formats.capture import Capture, FrameFlag, load_capture, read_frame, read_matte
from backend.progress import Progress
from tests.backend.footage_clips import write_clip
from tests.conftest import SHARED

CHEEK_TO_CHEEK = (234, 454)
LIPS = (13, 14)


class Listener(Progress):
    def __init__(self, cancel_at: int | None = None) -> None:
        self.messages: list[str] = []
        self.stages: dict[str, tuple[int, int]] = {}
        self.cancel_at = cancel_at

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.stages[stage] = done, total

    def message(self, text: str) -> None:
        self.messages.append(text)

    def cancelled(self) -> bool:
        return self.cancel_at is not None and self.stages.get("cropping", (0, 0))[0] >= self.cancel_at


def read_images(clip: Path, count: int) -> list[np.ndarray]:
    """The first `count` frames by FFmpeg alone, 480 x 480."""
    images = []
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            images.append(frame.to_ndarray(format="rgb24", width=480, height=480))
            if len(images) == count:
                return images
    raise AssertionError("the clip is too short for this test")


@pytest.fixture(scope="module")
def footage() -> Path:
    real = SHARED / "footage" / "man_glasses.mp4"
    return real if real.is_file() else asset_path("demo.mp4")


@pytest.fixture(scope="module")
def man(footage: Path) -> list[np.ndarray]:
    return read_images(footage, 12)


@pytest.fixture(scope="module")
def capture(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Capture:
    return make_capture(footage, tmp_path_factory.mktemp("build") / "man.capture", size=256, max_frames=12)


def assert_nothing_left(folder: Path) -> None:
    assert [path.name for path in folder.iterdir() if path.suffix != ".mp4"] == []


def test_a_capture_holds_every_frame_and_is_what_was_returned(capture: Capture, footage: Path) -> None:
    with av.open(str(footage)) as clip:
        rate = clip.streams.video[0].average_rate
    loaded = load_capture(capture.folder)
    assert loaded.frame_count == 12
    assert (loaded.flags == FrameFlag.GOOD).all()
    assert np.array_equal(loaded.landmarks, capture.landmarks)
    assert loaded.frame_numbers.tolist() == list(range(12))
    assert loaded.frame_times == pytest.approx(np.arange(12) / float(rate), abs=1e-3)
    assert loaded.fps == rate
    assert loaded.source_sha256 == hashlib.sha256(footage.read_bytes()).hexdigest()
    assert sorted(path.name for path in (capture.folder / "frames").iterdir()) == [f"{i:06d}.jpg" for i in range(12)]
    assert sorted(path.name for path in (capture.folder / "mattes").iterdir()) == [f"{i:06d}.png" for i in range(12)]
    assert json.loads((capture.folder / "capture.json").read_text())["counts"]["good"] == 12


def test_stored_frames_have_no_visible_loss(capture: Capture, footage: Path) -> None:
    source = list(read_frames(footage, max_frames=12))
    for index in (0, 11):
        cut = cut_square(source[index].image, capture.crop, capture.size)
        assert cv2.PSNR(cut, read_frame(capture, index)) > 47


def test_landmarks_lie_on_the_face_and_the_matte_is_the_person(capture: Capture) -> None:
    matte = read_matte(capture, 3)
    frame = read_frame(capture, 3)
    assert frame.shape == (256, 256, 3)
    assert matte.shape == (256, 256)
    points = capture.landmarks[3, :468, :2].astype(int)
    assert (matte[points[:, 1], points[:, 0]] > 200).mean() > 0.98
    assert (matte[:8] == 0).mean() > 0.6, "the wall above the head is no person"
    assert 0.3 < (matte > 127).mean() < 0.8
    lips = capture.landmarks[3, LIPS, :2].mean(0).astype(int)
    red, green, _ = frame[lips[1], lips[0]].astype(int)
    assert red > green + 20


def test_scores_follow_the_names(capture: Capture) -> None:
    assert len(SCORE_NAMES) == len(set(SCORE_NAMES)) == 52
    assert SCORE_NAMES[0] == "browDownLeft"
    assert SCORE_NAMES[-2:] == ("noseSneerRight", "tongueOut")
    assert (capture.scores[:, -1] == 0).all()
    # He looks straight ahead with his mouth shut in the first frames.
    assert capture.scores[:, SCORE_NAMES.index("jawOpen")].max() < 0.2
    assert ((capture.scores >= 0) & (capture.scores <= 1)).all()


def test_a_small_head_in_a_wide_image_is_cropped_and_mapped_back(man: list[np.ndarray], tmp_path: Path) -> None:
    wide = []
    for image in man[:6]:
        canvas = np.full((720, 1280, 3), 128, np.uint8)
        canvas[300:540, 800:1040] = cv2.resize(image, (240, 240), interpolation=cv2.INTER_AREA)
        wide.append(canvas)
    clip = write_clip(tmp_path / "wide.mp4", wide)
    capture = make_capture(clip, tmp_path / "wide.capture", size=256)
    x, y, side = capture.crop
    assert side < 400
    assert x < 830
    assert y < 320
    assert x + side > 1010
    assert y + side > 500
    detector = FaceDetector()
    in_source = detector.detect(man[2])[0].landmarks[:, :2] / 2 + (800, 300)
    detector.close()
    mapped = capture.landmarks[2, :, :2] * side / 256 + (x, y)
    assert np.median(np.linalg.norm(mapped - in_source, axis=1)) < 2.5


def test_frames_without_a_face_with_two_and_cut_off_are_flagged_and_named(
    man: list[np.ndarray],
    tmp_path: Path,
) -> None:
    def scene(index: int) -> np.ndarray:
        image = np.full((480, 960, 3), 120, np.uint8)
        if 4 <= index < 8:
            return image
        image[:, :480] = man[index % 12]
        if 12 <= index < 15:
            image[:, 480:] = man[0]
        # The last frames show the man half outside the left edge.
        return np.roll(np.where(np.arange(960)[:, None] < 230, 120, image), -230, axis=1) if index >= 24 else image

    listener = Listener()
    clip = write_clip(tmp_path / "scenes.mp4", [scene(index).astype(np.uint8) for index in range(28)])
    capture = make_capture(clip, tmp_path / "scenes.capture", size=256, progress=listener)
    assert (capture.flags[4:8] == FrameFlag.NO_FACE).all()
    assert np.isnan(capture.landmarks[4:8]).all()
    assert np.isnan(capture.detector_pose[4:8]).all()
    assert (capture.flags[12:15] == FrameFlag.SEVERAL_FACES).all()
    assert (capture.flags[[0, 1, 2, 9, 10, 16, 20, 23]] == FrameFlag.GOOD).all()
    # Half a face is either not detected or flagged as cut off.
    assert (capture.flags[24:] & (FrameFlag.CUT_OFF | FrameFlag.NO_FACE) != 0).all()
    assert any("frames 4-7: no face" in text for text in listener.messages)
    assert "frames 12-14: several faces" in json.loads((capture.folder / "capture.json").read_text())["flagged"]


def test_flags_read_as_runs() -> None:
    flags = np.array([0, 1, 1, 0, 6, 0], np.int32)
    assert describe_flags(flags) == [
        "frames 1-2: no face",
        "frame 4: several faces, face cut off by the edge of the image",
    ]


def two_people(man: list[np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate([image, image[:, ::-1]], axis=1) for image in man]


def nobody(man: list[np.ndarray]) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 255, (8, 64, 96, 3), np.uint8))


@pytest.mark.parametrize(("scene", "sentence"), [(two_people, "two faces"), (nobody, "No face")])
def test_a_clip_of_two_people_or_of_nobody_is_refused_and_leaves_nothing(
    man: list[np.ndarray],
    tmp_path: Path,
    scene: Callable[[list[np.ndarray]], list[np.ndarray]],
    sentence: str,
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", scene(man))
    with pytest.raises(EffigyError, match=sentence):
        make_capture(clip, tmp_path / "new.capture", size=128)
    assert_nothing_left(tmp_path)


def test_cancelling_leaves_nothing_and_keeps_the_capture_that_was_there(man: list[np.ndarray], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", man)
    with pytest.raises(Cancelled):
        make_capture(clip, tmp_path / "new.capture", size=128, progress=Listener(cancel_at=3))
    assert_nothing_left(tmp_path)
    first = make_capture(clip, tmp_path / "new.capture", size=128, max_frames=4)
    with pytest.raises(Cancelled):
        make_capture(clip, tmp_path / "new.capture", size=128, progress=Listener(cancel_at=3))
    assert load_capture(first.folder).frame_count == 4
    assert make_capture(clip, tmp_path / "new.capture", size=128, max_frames=6).frame_count == 6
    assert load_capture(first.folder).frame_count == 6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 10}, "between 64 and 4096"),
        ({"max_frames": 0}, "at least one frame"),
        ({"start": 3.0, "end": 2.0}, "must lie after"),
        ({"start": float("nan")}, "seconds from 0 up"),
        ({"start": 500.0}, "No frame of .* the clip lasts 1"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    footage: Path,
    tmp_path: Path,
    options: dict,
    sentence: str,
) -> None:
    with pytest.raises(EffigyError, match=sentence):
        make_capture(footage, tmp_path / "new.capture", **options)
    assert_nothing_left(tmp_path)


def test_a_folder_with_other_files_is_never_replaced(footage: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(EffigyError, match="holds other files"):
        make_capture(footage, tmp_path, max_frames=2)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_files_that_come_into_the_folder_while_a_capture_is_made_are_not_replaced(
    footage: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "new.capture"

    class Writing(Progress):
        def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
            folder.mkdir(exist_ok=True)
            (folder / "thesis.txt").write_text("years of work")

    with pytest.raises(EffigyError, match="holds other files"):
        make_capture(footage, folder, max_frames=2, progress=Writing())
    assert (folder / "thesis.txt").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_detectors_do_not_write_to_the_terminal(footage: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from backend.footage.build import make_capture;"
        "make_capture(Path(sys.argv[1]), Path(sys.argv[2]), size=128, max_frames=4)"
    )
    command = [sys.executable, "-c", script, str(footage), str(tmp_path / "a.capture")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == ""


def test_a_capture_of_no_given_size_has_frames_of_512_pixels(footage: Path, tmp_path: Path) -> None:
    listener = Listener()
    assert make_capture(footage, tmp_path / "new.capture", max_frames=2, progress=listener).size == 512
    assert listener.stages["cropping"] == (2, 2)
    done, total = listener.stages["finding the head"]
    assert done == total >= 2 and not listener.messages
    assert read_frame(load_capture(tmp_path / "new.capture"), 0).shape == (512, 512, 3)


@pytest.mark.parametrize(
    ("start", "end", "most", "expected"),
    [
        (None, None, None, 250),
        (None, None, 30, 30),
        (2.0, None, None, 200),
        (None, 4.0, None, 100),
        (2.0, 4.0, 20, 20),
        (9.0, 99.0, None, 25),
        (9.999, None, None, 1),
    ],
)
def test_the_expected_number_of_frames_follows_the_chosen_part(
    start: float | None, end: float | None, most: int | None, expected: int
) -> None:
    assert _expected_frames(probe(asset_path("demo.mp4")), start, end, most) == expected
