"""The demo clip: ten seconds of a procedural person who talks, blinks, moves the eyes and rotates the head.

`assets/demo.mp4` is the clip that the demo and the tests track; `assets/demo_truth.npz` is its ground truth as a
Track.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from backend.formats.track import Track, save_track
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.model import EYE_L, EYE_R, JAW, NECK, HeadModel
from backend.progress import SILENT, Progress
from backend.storage import write_beside

from .appearance import Appearance, Painted, paint_head
from .render_person import render_person

SIZE = 512
FPS = 25
FRAMES = 250
SEED = 11
DISTANCE = 0.86
FOCAL = 1150.0
_BLINKS = (18, 61, 104, 131, 172, 214, 236)
_SYLLABLES = (
    (26, "jawOpen", 0.55),
    (31, "mouthFunnel", 0.6),
    (36, "mouthClose", 0.0),
    (40, "jawOpen", 0.7),
    (46, "mouthStretch", 0.5),
    (50, "jawOpen", 0.35),
    (56, "mouthPucker", 0.7),
    (64, "jawOpen", 0.6),
    (70, "mouthPress", 0.6),
    (75, "jawOpen", 0.45),
    (80, "mouthUpperUp", 0.5),
    (86, "mouthFunnel", 0.7),
    (92, "jawOpen", 0.8),
    (140, "jawOpen", 0.5),
    (145, "mouthPucker", 0.6),
    (150, "jawOpen", 0.65),
    (156, "mouthStretch", 0.5),
    (162, "jawOpen", 0.5),
    (168, "mouthFunnel", 0.6),
    (205, "jawOpen", 0.6),
    (210, "mouthPucker", 0.65),
    (216, "jawOpen", 0.7),
    (222, "mouthStretch", 0.45),
    (228, "mouthFunnel", 0.6),
    (240, "jawOpen", 0.45),
)
"""Frame, shape (both sides where it has sides), strength; each a smooth pulse."""
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

    for frame, name, strength in _SYLLABLES:
        add(name, strength * np.exp(-np.square((time - frame) / 2.4)))
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


def shoulders(model: HeadModel, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A shirt below the neck: vertices (V, 3) in head space and triangles; a collar, then a smooth fall to the
    shoulders.
    """
    neck = (model.template + model.shape_basis @ identity)[model.regions["boundary"]]
    centre = neck.mean(0)
    reach = np.abs(neck - centre).max(0)
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    down = np.linspace(0, 1, 40)
    marks = [0, 0.05, 0.15, 0.3, 0.5, 0.7, 1]
    width = np.interp(down, marks, [reach[0] + 0.003, reach[0] + 0.009, reach[0] + 0.030, 0.130, 0.190, 0.215, 0.230])
    depth = np.interp(down, marks, [reach[2] + 0.003, reach[2] + 0.009, reach[2] + 0.022, 0.095, 0.115, 0.122, 0.130])
    height = np.interp(down, marks, [0.012, 0.009, -0.006, -0.020, -0.042, -0.080, -0.26])
    rings = np.stack(
        [width[:, None] * np.sin(angles), np.repeat(height[:, None], len(angles), 1), depth[:, None] * np.cos(angles)],
        -1,
    )
    # The collar dips at the throat.
    rings[..., 1] -= 0.020 * np.clip(np.cos(angles), 0, 1) ** 2 * np.exp(-down * 6)[:, None]
    count = len(angles)
    faces = []
    for ring in range(len(down) - 1):
        for index in range(count):
            a, b = ring * count + index, ring * count + (index + 1) % count
            faces += [(a, a + count, b), (b, a + count, b + count)]
    return rings.reshape(-1, 3) + centre, np.array(faces, np.int32)


def write_demo_clip(folder: Path, progress: Progress = SILENT) -> None:
    """Render `demo.mp4` and `demo_truth.npz` into `folder`."""
    model = load_head(folder / "open_head.npz")
    truth = demo_truth(model)
    painted = paint_head(model, Appearance(seed=SEED))
    head = Head(model)
    body, body_faces = shoulders(model, truth.identity)
    with torch.no_grad():
        parts = (truth.identity[None], truth.expression, truth.rotations)
        vertices = head(*(torch.as_tensor(part) for part in parts)).vertices.numpy()
    scenes = [
        (
            painted,
            *(points @ camera[:3, :3].T + camera[:3, 3] for points in (vertices[index], body)),
            body_faces,
            truth.intrinsics,
        )
        for index, camera in enumerate(truth.head_to_camera)
    ]
    with write_beside(folder / "demo.mp4") as temporary, av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "slow"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
            for index, image in enumerate(workers.map(_render_frame, scenes)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                progress.update("demo clip", index + 1, FRAMES)
        container.mux(stream.encode())
    save_track(truth, folder / "demo_truth.npz")


def _render_frame(parts: tuple[Painted, np.ndarray, np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    painted, vertices, body, body_faces, intrinsics = parts
    return render_person(painted, vertices, (body, body_faces), intrinsics.astype(np.float64), SIZE, _background())


def _background() -> np.ndarray:
    """(SIZE, SIZE, 3): a wall out of focus, lighter where the key light falls."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    glow = np.exp(-((x - 0.28) ** 2 + (y - 0.35) ** 2) / 0.25)[..., None]
    return (np.array([0.36, 0.39, 0.42]) + glow * np.array([0.20, 0.19, 0.17])).astype(np.float64)


if __name__ == "__main__":
    write_demo_clip(Path(__file__).resolve().parent.parent)
