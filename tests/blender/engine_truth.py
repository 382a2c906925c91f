"""Avatars for the tests of the render engine, what the backend draws of them, and files read back. It runs in the
backend's Python.

    python tests/blender/engine_truth.py make FOLDER          → FOLDER/{ann,ben,cat}.effigy, FOLDER/truth{,_cat}.npz
    python tests/blender/engine_truth.py read FILE OUT.npz    an EXR's channels by name, or an MP4's frames

The avatars are untrained but look like heads: one Gaussian per vertex, coloured by its position. Cat's Gaussians are
blendshapes, which the extension plays by itself.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

SIZE = 128
LENS, SENSOR = 70.0, 36.0
AZIMUTH, DISTANCE, HEIGHT = 0.5, 0.75, -0.02
"""The camera: its azimuth around the head, radians, then its distance and height, metres."""
EXPRESSION = {"mouthSmileLeft": 0.8, "browInnerUp": 0.6, "eyeBlinkRight": 1.0}


def make(folder: Path) -> None:
    import torch

    from backend.avatar.anchors import mean_edge_lengths
    from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
    from backend.avatar.render import draw
    from backend.avatar.settings import AvatarSettings
    from backend.formats.track import Track
    from backend.head.formats import load_head
    from backend.training.warmup import VertexBoundGaussians, distil_into_networks

    model = load_head()
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    expression = np.zeros((1, len(model.expression_names)), np.float32)
    for name, value in EXPRESSION.items():
        expression[0, model.expression_names.index(name)] = value
    settings, camera = AvatarSettings(filters=4, latent_size=2, blendshapes=0), look_at()
    for name, turn in (("ann", (0, 1, 2)), ("ben", (2, 0, 1)), ("cat", (1, 2, 0))):
        torch.manual_seed(3)
        settings = replace(settings, blendshapes=5 if name == "cat" else 0)
        avatar = Avatar(build_networks(settings, model, identity).eval(), model, identity, settings)
        free = VertexBoundGaussians(torch.as_tensor(mean_edge_lengths(model.template, model.faces)), settings.sh_degree)
        # A colour for each point, and a pattern of 3 cm that shows when the face moves.
        share = (model.template - model.template.min(0)) / np.ptp(model.template, axis=0)
        colors = (0.25 + 0.5 * share + 0.15 * np.sin(model.template * 2 * np.pi / 0.03))[:, turn]
        with torch.no_grad():
            free.appearance[:, 0] = 4.0
            free.appearance[:, 1:4] = torch.as_tensor(colors - 0.5) / 0.28209479177387814
        pose = avatar.pose(
            torch.as_tensor(expression), torch.zeros(1, 5, 3), torch.as_tensor(camera, dtype=torch.float32)[None]
        )
        distil_into_networks(free, avatar.networks, pose, steps=1)
        save_avatar(avatar, folder / f"{name}.effigy")
    focal = LENS / SENSOR * SIZE
    track = Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=identity,
        expression=expression,
        rotations=np.zeros((1, 5, 3), np.float32),
        head_to_camera=camera[None].astype(np.float32),
        size=SIZE,
        intrinsics=np.array(((focal, 0, SIZE / 2), (0, focal, SIZE / 2), (0, 0, 1)), np.float32),
        fps=Fraction(25),
        residual=np.zeros(1, np.float32),
        flags=np.zeros(1, np.int32),
        training_count=1,
    )
    for name, truth in (("ann", "truth"), ("cat", "truth_cat")):
        frame = draw(load_avatar(folder / f"{name}.effigy"), track, [0], SIZE)[0]
        np.savez(folder / f"{truth}.npz", color=frame.color, alpha=frame.alpha, depth=frame.depth)


def look_at() -> np.ndarray:
    """(4, 4) head space to an OpenCV camera at AZIMUTH, DISTANCE and HEIGHT, which faces the head's vertical axis."""
    sine, cosine = np.sin(AZIMUTH), np.cos(AZIMUTH)
    rotation = np.array(((cosine, 0, -sine), (0, -1, 0), (-sine, 0, -cosine)))
    position = np.array((DISTANCE * sine, HEIGHT, DISTANCE * cosine))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ position
    return matrix


def read(file: Path, out: Path) -> None:
    if file.suffix == ".exr":
        import OpenEXR

        with OpenEXR.File(str(file), separate_channels=True) as opened:
            # Blender 5 writes each pass as a part of its own.
            channels = {name: channel.pixels for part in opened.parts for name, channel in part.channels.items()}
            texts = {name: value for part in opened.parts for name, value in part.header.items() if "crypto" in name}
            np.savez(out, **channels, **texts)
        return
    import av

    with av.open(str(file)) as opened:
        np.savez(out, frames=np.stack([frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]))


if __name__ == "__main__":
    verb, *paths = sys.argv[1:]
    {"make": make, "read": read}[verb](*map(Path, paths))
