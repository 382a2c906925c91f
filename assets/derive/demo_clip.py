"""The demo clip: ten seconds of a procedural person who talks, blinks, moves the eyes and rotates the head, with sound.

`assets/demo.mp4` is the clip that the demo and the tests track; `assets/demo_truth.npz` is its ground truth as a
Track.
"""

from __future__ import annotations

import hashlib
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from backend.errors import EffigyError
from backend.formats.track import Track, save_track
from backend.head.formats import load_head
from backend.head.model import EYE_L, EYE_R, JAW, NECK, HeadModel
from backend.progress import SILENT, Progress
from backend.storage import write_beside

from .clip_scene import scene_arrays
from .speech import SPEECH, spoken_channels

ROOT = Path(__file__).resolve().parents[2]
SIZE = 512
FPS = 25
FRAMES = 250
SEED = 11
DISTANCE = 0.86
FOCAL = 1150.0
_BLINKS = (18, 61, 104, 131, 172, 214, 236)
_PHRASES = (
    (110, 14, "mouthSmile", 0.85),
    (115, 16, "cheekSquint", 0.5),
    (8, 12, "browInnerUp", 1.0),
    (8, 12, "browOuterUp", 0.5),
    (8, 12, "eyeWide", 0.4),
    (100, 10, "browOuterUp", 0.8),
    (180, 12, "browDown", 0.7),
    (182, 12, "noseSneer", 0.35),
    (190, 12, "mouthFrown", 0.5),
    (232, 14, "mouthSmile", 0.6),
    (226, 12, "browInnerUp", 1.0),
)
"""Frame, half length, shape, strength."""
_JAW_RADIANS = 0.30
"""The jaw bone's angle for a `jawOpen` of 1: the jaw is opened by its bone, as the tracker and the rig do."""


def demo_truth(model: HeadModel) -> Track:
    """The performance, as a track of `SIZE`-pixel images."""
    random = np.random.default_rng(SEED)
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    identity[:40] = random.normal(0, 0.55, 40)
    time = np.arange(FRAMES)
    expression = np.zeros((FRAMES, len(model.expression_names)), np.float32)
    rotations = np.zeros((FRAMES, 5, 3), np.float32)

    def add(name: str, values: np.ndarray) -> None:
        if name == "jawOpen":
            rotations[:, JAW, 0] += _JAW_RADIANS * values
            return
        columns = [
            index
            for index, known in enumerate(model.expression_names)
            if known in (name, name + "Left", name + "Right")
        ]
        expression[:, columns] = np.maximum(expression[:, columns], values[:, None])

    for name, values in spoken_channels("clip", FPS).items():
        add(name, values[:FRAMES])
    for frame, length, name, strength in _PHRASES:
        add(name, strength * np.exp(-(np.square((time - frame) / length) ** 2)))
    for frame in _BLINKS:
        add("eyeBlink", np.clip(1.35 - np.abs(time - frame) / 2.6, 0, 1))
    gaze = np.cumsum(_steps(random, time, (0, 30, 66, 98, 120, 150, 176, 200, 230)), 0)
    for joint in (EYE_L, EYE_R):
        rotations[:, joint, :2] = gaze
    yaw = np.radians(35) * np.sin(2 * np.pi * time / 125) * np.clip(time / 20, 0, 1)
    pitch = np.radians(8) * np.sin(2 * np.pi * time / 83 + 0.6)
    roll = np.radians(4) * np.sin(2 * np.pi * time / 61)
    rotations[:, NECK] = Rotation.from_euler("YXZ", np.stack([yaw, pitch, roll], 1)).as_rotvec()
    camera = np.tile(np.eye(4, dtype=np.float32), (FRAMES, 1, 1))
    camera[:, :3, :3] = np.diag([1.0, -1.0, -1.0])
    camera[:, :3, 3] = [0, 0.0, DISTANCE]
    camera[:, 0, 3] = 0.006 * np.sin(2 * np.pi * time / 97)
    intrinsics = np.array([[FOCAL, 0, SIZE / 2], [0, FOCAL, SIZE / 2], [0, 0, 1]], np.float32)
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=identity,
        expression=expression,
        rotations=rotations,
        head_to_camera=camera,
        intrinsics=intrinsics,
        size=SIZE,
        fps=Fraction(FPS),
        residual=np.zeros(FRAMES, np.float32),
        flags=np.zeros(FRAMES, np.int32),
        training_count=FRAMES - round(0.2 * FRAMES),
    )


def _steps(random: np.random.Generator, time: np.ndarray, frames: tuple[int, ...]) -> np.ndarray:
    """(F, 2) increments of a gaze that jumps to a new target at each of `frames`."""
    targets = np.concatenate([[[0, 0]], np.radians(random.uniform((-8, -16), (8, 16), (len(frames), 2)))])
    jumps = np.zeros((len(time), 2))
    for index, frame in enumerate(frames):
        jumps[frame : frame + 2] += (targets[index + 1] - targets[index]) / 2
    return jumps


def write_demo_clip(folder: Path, blender: Path, cache: Path, progress: Progress = SILENT) -> None:
    """Render `demo.mp4` and `demo_truth.npz` into `folder`, with Cycles in Blender's Python `blender`.

    Rendered frames are kept in `cache`, so that a run that was interrupted continues.
    """
    truth = demo_truth(load_head(folder / "open_head.npz"))
    frames = render_frames(scene_arrays(truth), blender, cache, progress=progress)
    with write_beside(folder / "demo.mp4") as temporary:
        encode(frames, SPEECH / "clip.flac", temporary)
    save_track(truth, folder / "demo_truth.npz")


def render_frames(
    arrays: dict[str, np.ndarray], blender: Path, cache: Path, *options: str, progress: Progress = SILENT
) -> list[Path]:
    """Images of a scene, by `cycles.render` with `options`; its folder below `cache` is named by all that it shows."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    for source in sorted((Path(__file__).parent / "cycles").glob("*.py")):
        digest.update(source.read_bytes())
    folder = cache / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "scene.npz", **arrays)  # pyright: ignore[reportArgumentType]  (its stub has other keywords)
    command = [str(blender), "-m", "assets.derive.cycles.render", str(folder / "scene.npz"), str(folder), *options]
    count = len(arrays["vertices"])
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for _ in process.stdout or ():
            progress.update("demo clip", len(list(folder.glob("[0-9]*.png"))), count)
    if process.returncode:
        raise EffigyError("Blender did not render the demo clip: its messages are above.")
    return sorted(folder.glob("[0-9]*.png"))


def encode(frames: list[Path], sound: Path, out: Path) -> None:
    """A film of these images with this sound, H.264 and AAC."""
    with av.open(str(out), "w", format="mp4") as film, av.open(str(sound)) as spoken:
        pictures = film.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "slow"})
        pictures.width = pictures.height = SIZE
        pictures.pix_fmt = "yuv420p"
        voice = film.add_stream("aac", rate=spoken.streams.audio[0].rate, layout="mono")
        voice.bit_rate = 64_000
        for file in frames:
            image = cv2.imread(str(file))
            if image is None:
                raise EffigyError(f"{file} is damaged: delete it, then run again.")
            film.mux(pictures.encode(av.VideoFrame.from_ndarray(np.asarray(image, np.uint8), format="bgr24")))
        film.mux(pictures.encode())
        for frame in spoken.decode(audio=0):
            film.mux(voice.encode(frame))
        film.mux(voice.encode())
