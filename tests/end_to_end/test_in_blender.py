"""The main job inside Blender: a real clip is imported, an avatar trained, a smile keyed by hand and rendered to files.

Runs in Blender's Python with the built extension installed. The rendered images are judged by the face detector that
the tracker uses, which runs in the backend's Python.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# bpy is not imported yet: its user folder must be set first, which `installed_extension` does.
if importlib.util.find_spec("bpy") is None:
    pytest.skip(
        "runs in Blender's Python: python3 build.py test tests/end_to_end/test_in_blender.py", allow_module_level=True
    )

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = 1, 18
"""Frames of the clip that are imported."""
SHOT = (6, 17)
"""First and last of the twelve frames that are rendered."""
RISE = (9, 13)
"""Frames of the keys without a smile and with the full smile."""
READ = """
import json, sys
from pathlib import Path
import av, cv2, numpy as np
from backend.footage.detector import SCORE_NAMES, FaceDetector

detector, scores = FaceDetector(), []
for file in sys.argv[2:]:
    image = cv2.imread(file, cv2.IMREAD_UNCHANGED).astype(float)
    over_grey = image[..., :3] * image[..., 3:] / 255 + 180 * (1 - image[..., 3:] / 255)
    faces = detector.detect(np.ascontiguousarray(over_grey[..., ::-1].astype(np.uint8)))
    scores.append(dict(zip(SCORE_NAMES, faces[0].scores.tolist())) if faces else None)
with av.open(sys.argv[1]) as video:
    frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
steps = [float(np.abs(after.astype(int) - before).max()) for before, after in zip(frames, frames[1:])]
with av.open(str(Path(sys.argv[1]).with_name("film.mp4"))) as film:
    count = sum(1 for _ in film.decode(video=0))
with av.open(str(Path(sys.argv[1]).with_name("film.mp4"))) as film:
    loud = bool(film.streams.audio) and any(np.abs(part.to_ndarray()).max() > 0.01 for part in film.decode(audio=0))
shot = {"frames": count, "loud": loud}
print(json.dumps({"film": shot, "scores": scores, "video": [len(frames), *frames[0].shape[:2]], "steps": steps}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a real performance as Blender rendered it: `without` holds the frames without a key, `frames` and
    smile.mp4 the same shot with a smile keyed over the performance.
    """
    from building import demo_in_blender
    from building.extension import build_extension
    from building.in_blender import installed_extension

    folder = tmp_path_factory.mktemp("shot")
    clip = Path(os.environ.get("EFFIGY_SHARED", ROOT.parent / "shared")) / "footage" / "woman_frontal.mp4"
    if not clip.is_file():
        clip = ROOT / "assets" / "demo.mp4"
    with installed_extension(build_extension(folder, environment=Path(sys.prefix))):
        import bpy

        bpy.ops.effigy.import_video(
            filepath=str(clip),
            first=FIRST,
            last=LAST,
            size=256,
            landmarks_only=True,
            capture=str(folder / "clip.capture"),
        )
        settings = bpy.context.object.effigy
        settings.minutes, settings.size, settings.device = 0.4, 128, "cpu"
        bpy.ops.effigy.train_avatar()
        scene = bpy.context.scene
        demo_in_blender.use_effigy(scene, *SHOT)
        demo_in_blender.render_frames(scene, str(folder / "without" / "shot_"))
        demo_in_blender.key_smile(
            demo_in_blender.rig_of(bpy.context.object), (*RISE, SHOT[1], SHOT[1] + 4), strength=1.2
        )
        demo_in_blender.render_frames(scene, str(folder / "frames" / "shot_"))
        demo_in_blender.render_video(scene, str(folder / "smile.mp4"))
        _speak_on_stage(folder)
        yield folder


def _speak_on_stage(folder: Path) -> None:
    """Render the sentence's two frames with the mouth shut and open widest to `stage`, and join film.mp4."""
    import bpy

    from building import demo_in_blender, demo_stage

    scene, rig = bpy.context.scene, demo_in_blender.rig_of(bpy.context.object)
    first = SHOT[1] + 1
    length = demo_stage.say_line(first)
    opening = {}
    for frame in range(first, first + length):
        scene.frame_set(frame)
        opening[frame] = rig.pose_bone("jaw").matrix_basis.to_quaternion().angle
    demo_stage.set_stage(rig)
    for name, frame in (("1_shut", min(opening, key=opening.get)), ("2_open", max(opening, key=opening.get))):
        scene.frame_start = scene.frame_end = frame
        demo_in_blender.render_frames(scene, str(folder / "stage" / f"{name}_"), film_transparent=False)
    shots = [(folder / "frames", 1), (folder / "stage", 13)]
    # The sentence begins half a second after its sound.
    demo_stage.join_shots(shots, [(demo_stage.SPEECH / "line.flac", -14)], demo_in_blender.GREY, folder / "film.mp4")


def files(folder: Path, name: str = "frames") -> list[Path]:
    return [folder / name / f"shot_{number:04d}.png" for number in range(SHOT[0], SHOT[1] + 1)]


@pytest.fixture(scope="module")
def detected(folder: Path) -> dict:
    """The detector's scores of the frames, those without a key first, and the size and changes of the video."""
    ended = subprocess.run(
        [
            os.environ["EFFIGY_BACKEND_PYTHON"],
            "-c",
            READ,
            str(folder / "smile.mp4"),
            *map(str, files(folder, "without") + files(folder) + sorted((folder / "stage").iterdir())),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def read(path: Path) -> np.ndarray:
    """(H, W, 4) premultiplied, the top row first."""
    import bpy

    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    image_rows = pixels.reshape(height, width, 4)[::-1]
    return np.concatenate((image_rows[..., :3] * image_rows[..., 3:], image_rows[..., 3:]), -1)


def test_every_frame_shows_a_head_on_transparent_film(folder: Path) -> None:
    assert sorted((folder / "frames").iterdir()) == files(folder) and len(files(folder)) == 12
    for file in files(folder):
        alpha = read(file)[..., 3]
        assert alpha.shape == (256, 256)
        assert (alpha > 0.95).mean() > 0.08 and (alpha < 0.01).mean() > 0.2


def test_consecutive_frames_differ_where_the_key_moves(folder: Path) -> None:
    keyed, without = (np.stack([read(file) for file in files(folder, name)]) for name in ("frames", "without"))
    # The performance moves as well, so the effect of the key is the difference from the frame without the key.
    effect = np.abs(keyed - without).max(-1)
    rises = range(RISE[0] - SHOT[0], RISE[1] - SHOT[0])
    assert effect[: rises[0] + 1].max() < 3 / 255, "the frames before the key are not the performance"
    for index in rises:
        assert (np.abs(keyed[index + 1] - keyed[index]).max(-1) > 0.02).sum() > 200
        assert (np.abs(effect[index + 1] - effect[index]) > 0.02).sum() > 100, (
            f"the key does not move frame {index + 1}"
        )
    rows = np.argwhere(effect[-1] > 0.05)[:, 0]
    assert np.median(rows) > 100, "a smile moves the lower half of the face"


def test_the_video_shows_the_shot(detected: dict) -> None:
    assert detected["video"] == [12, 256, 256]
    assert all(step > 8 for step in detected["steps"][RISE[0] - SHOT[0] : RISE[1] - SHOT[0]])


def test_the_smile_that_was_keyed_is_found_in_the_rendered_frames(detected: dict) -> None:
    assert all(detected["scores"]), "no face is found in some of the frames"
    smile = (
        np.array([scores["mouthSmileLeft"] + scores["mouthSmileRight"] for scores in detected["scores"][:24]]).reshape(
            2, 12
        )
        / 2
    )
    without, keyed = smile
    before, after = slice(0, RISE[0] - SHOT[0] + 1), slice(RISE[1] - SHOT[0], None)
    scores = f"smile scores of the performance {without.round(2)}, with the key {keyed.round(2)}"
    assert keyed[after].mean() > keyed[before].mean() + 0.15, scores
    assert keyed[after].mean() > without[after].mean() + 0.15, scores
    assert keyed[after].min() > keyed[before].max() + 0.03, scores


def test_the_avatar_opens_its_mouth_for_a_sentence_on_a_stage(folder: Path, detected: dict) -> None:
    shut, opened = (scores["jawOpen"] for scores in detected["scores"][24:])
    assert opened > shut + 0.05
    frames = [read(file) for file in sorted((folder / "stage").iterdir())]
    assert len(frames) == 2 and all((frame[..., 3] == 1).all() for frame in frames)
    # Left of the head the wall is lit, and right of it lies the head's shadow.
    wall = [frames[0][200, columns, :3].mean() for columns in (slice(0, 30), slice(-50, -10))]
    assert wall[0] > 1.25 * wall[1]


def test_the_film_joins_both_shots_with_sound(folder: Path, detected: dict) -> None:
    import bpy

    # The Blender of some versions has no sound as a Python module.
    assert detected["film"] == {"frames": 14, "loud": bpy.app.build_options.audaspace}
