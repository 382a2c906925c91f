"""Hair, rims and mattes of training targets, where the truth is known.

    python -m bench.mattes [CAPTURE]

Two tables on rendered people, whose mattes and colours are known. *Rims*: the half-covered pixels over other
backgrounds in the colours of the footage, and in those of the foreground, with the true matte and with wrong ones.
*Necks*: wrong pixels of the cut below the neck at every yaw, with a body that follows the head or stays, also where the
track splits the turn otherwise, and with a raised chest.

With a tracked CAPTURE a bottle is painted behind the person's hair, and the matting network and the cut are run as in
footage: pixels of the bottle in the head mattes, with and without the room that the head's motion tells.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from assets.derive.clothes import shoulders
from backend.footage.foreground import foreground_colors
from backend.footage.matte import MattingModel
from backend.footage.plate import find_plate
from backend.formats.capture import load_capture, read_frame, read_matte
from backend.formats.track import load_track
from backend.head.formats import load_head
from backend.head.forward import Head, vertex_normals
from backend.head.model import NECK
from backend.head.registry import find_head
from backend.splatting.mesh import rasterize_mesh
from backend.tracking.after.camera_vertices import camera_vertices
from backend.tracking.after.neck_cut import NeckCutter
from backend.tracking.after.room import find_room
from backend.training.metrics import rim_psnr

from .known_person import SIZE, Scene

PEOPLE: Final = 6
STRANDS: Final = 120
YAWS: Final = (-90, -75, -60, -45, 0, 45, 60, 75, 90)
BODIES: Final = {
    "follows, level chest": (0, 0.0, 0.0, 0.0),
    "follows, chest 6 cm up": (0, 0.0, 0.0, 0.06),
    "follows, chest 6 cm up, chin down 25°": (25, 0.0, 0.0, 0.06),
    "stays, shoulders 6 cm up": (0, 0.8, 0.45, 0.06),
    "follows, tracked by half, chest 6 cm up": (0, 0.0, 0.45, 0.06),
    "follows by half, chest 9 cm up": (0, 0.4, 0.45, 0.09),
}
"""Pitch in degrees, the neck's share of the turn in truth and in the track, and metres by which chest and shoulders are
raised."""
EVERY: Final = 6
"""Of a capture's frames."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mattes", description=__doc__.splitlines()[0])
    parser.add_argument("capture", nargs="?", type=Path, help="folder of a tracked capture")
    arguments = parser.parse_args()
    if arguments.capture:
        print(bottle_table(arguments.capture))
    else:
        print(rim_table(), neck_table(), sep="\n")


def rim_table() -> str:
    """`rim_psnr` in dB, the mean over people."""
    random = np.random.default_rng(0)
    rows = {"true": [], "softened by 1.5 px": [], "wider by 1 px": []}
    for seed in range(PEOPLE):
        image, colors, alpha = filmed(seed, random)
        truth = np.dstack((colors * alpha[..., None], alpha))
        mattes = (
            alpha,
            cv2.GaussianBlur(alpha, (0, 0), 1.5),
            cv2.GaussianBlur(cv2.dilate(alpha, np.ones((3, 3))), (0, 0), 1),
        )
        for name, matte in zip(rows, mattes, strict=True):
            byte = (255 * matte).round().astype(np.uint8)
            share = byte[..., None] / np.float32(255)
            figures = (
                rim_psnr(np.dstack((found / np.float32(255) * share, share)), truth)
                for found in (image, foreground_colors(image, byte))
            )
            rows[name].append(tuple(figures))
    lines = ["| matte | colours of the footage | of the foreground |", "|---|--:|--:|"]
    lines += [f"| {name} | {' | '.join(f'{mean:.1f}' for mean in np.mean(row, 0))} |" for name, row in rows.items()]
    return "\n".join(lines) + "\n"


def filmed(seed: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A person with loose strands of hair before a bright room, slightly out of focus: the image (SIZE, SIZE, 3) uint8,
    the person's colours (SIZE, SIZE, 3) and matte (SIZE, SIZE), float32 in [0, 1].
    """
    scene, over = Scene(load_head(), seed, 2, 40.0, still=True), []
    for level in (0.0, 1.0):
        scene._background = np.full((SIZE, SIZE, 3), level, np.float32)
        over.append((scene.image(1, noise=0) / 255) ** 2.2)
    alpha = (1 - (over[1] - over[0]).mean(2)).clip(0, 1)
    shown = (over[0] / np.maximum(alpha, 0.02)[..., None]).clip(0, 1) ** (1 / 2.2) * alpha[..., None]
    strands = np.zeros((4 * SIZE, 4 * SIZE), np.uint8)
    outline = np.argwhere((alpha[: SIZE // 2] > 0.3) & (alpha[: SIZE // 2] < 0.9))
    for row, column in outline[random.integers(len(outline), size=STRANDS)]:
        direction, place = np.array((column - SIZE / 2, row - SIZE / 2)), 4.0 * np.array((column, row))
        points = [place]
        for _ in range(12):
            direction = direction / np.linalg.norm(direction) + random.normal(0, 0.35, 2) + (0, 0.15)
            points.append(points[-1] + 8 * direction / np.linalg.norm(direction))
        cv2.polylines(strands, [np.array(points).astype(np.int32)], False, 255, 2, cv2.LINE_AA)
    added = (1 - alpha) * cv2.resize(strands, (SIZE, SIZE), interpolation=cv2.INTER_AREA) / 255
    hair = np.array(scene.appearance.hair)
    shown, alpha = (cv2.GaussianBlur(part, (0, 0), 0.8) for part in (shown + added[..., None] * hair, alpha + added))
    down = np.linspace(0, 1, SIZE)[:, None, None]
    room = np.array((0.85, 0.8, 0.75)) - down * (0.2, 0.1, 0.25) + np.zeros((SIZE, SIZE, 3))
    room[60:260, 60:160], room[:, 380:400] = (0.2, 0.25, 0.3), (0.95, 0.6, 0.4)
    image = shown + (1 - alpha[..., None]) * room + random.normal(0, 2 / 255, shown.shape)
    colors = shown / np.maximum(alpha, 1e-3)[..., None]
    return (255 * image).round().clip(0, 255).astype(np.uint8), colors.astype(np.float32), alpha.astype(np.float32)


def neck_table() -> str:
    """Pixels of 512 x 512: body that is kept + head that is lost."""
    people = _People()
    lines = [f"| body | {' | '.join(f'{yaw}°' for yaw in YAWS)} |", "|---|" + "--:|" * len(YAWS)]
    for name, how in BODIES.items():
        cells = []
        for yaw in YAWS:
            tracked, head, body = people.seen(yaw, *how)
            matte = people.cutter.cut(np.where(head | body, 255, 0).astype(np.uint8), tracked, people.intrinsics)
            cells.append(f"{((matte > 127) & body).sum()} + {((matte < 128) & head).sum()}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


class _People:
    """A person with short hair in a shirt, seen from the front by a still camera."""

    intrinsics = np.array(((1000.0, 0, SIZE / 2), (0, 1000.0, SIZE / 2), (0, 0, 1)))

    def __init__(self) -> None:
        self.model = load_head()
        self.cutter, self.head = NeckCutter(self.model), Head(self.model)
        scene = Scene(self.model, 5, 4, 10.0, still=True, oversampling=1)
        self.identity = scene.truth.identity
        self.shirt, self.shirt_faces = shoulders(self.model, self.identity)
        self.lift = np.linalg.norm(scene._haired[0] - scene._posed[0], axis=1)[:, None]
        self.hair_faces = self.model.faces[(scene._grows[self.model.faces] > 0.3).all(1)]
        template = self.model.template + self.model.shape_basis @ self.identity
        self.joint = self.model.joint_regressor[NECK].astype(np.float64) @ template

    def seen(
        self, yaw: float, pitch: float, share: float, tracked: float, raised: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tracked vertices in the camera, and the pixels of head and hair and of the body, (SIZE, SIZE) bool."""
        skin = self._turned(yaw * share, pitch)
        faces = torch.as_tensor(self.model.faces.astype(np.int64))
        hair = skin + self.lift * vertex_normals(torch.as_tensor(skin)[None], faces)[0].numpy()
        neck = self.model.template[self.model.regions["boundary"]].mean(0)
        shirt = self.shirt.copy()
        shirt[:, 1] += raised * np.clip((np.hypot(*(shirt - neck)[:, [0, 2]].T) - 0.07) / 0.06, 0, 1)
        depth = [
            self._depth(self._in_camera(part, yaw * (1 - share)), faces)
            for part, faces in (
                (skin, self.model.faces),
                (hair, self.hair_faces),
                (shirt, self.shirt_faces),
            )
        ]
        head = np.minimum(depth[0], depth[1])
        vertices = self._in_camera(self._turned(yaw * tracked, pitch), yaw * (1 - tracked))
        return vertices, np.isfinite(head) & (head <= depth[2]), depth[2] < head

    def _turned(self, yaw: float, pitch: float) -> np.ndarray:
        rotations = torch.zeros(1, 5, 3)
        rotations[0, NECK] = torch.as_tensor(Rotation.from_euler("YX", (yaw, pitch), degrees=True).as_rotvec())
        still = torch.zeros(1, len(self.model.expression_names))
        with torch.no_grad():
            return self.head(torch.as_tensor(self.identity)[None], still, rotations).vertices[0].numpy()

    def _in_camera(self, points: np.ndarray, yaw: float) -> np.ndarray:
        """Turned about the neck's joint."""
        flip = np.diag((1.0, -1.0, -1.0))
        turn = Rotation.from_euler("Y", yaw, degrees=True).as_matrix()
        return (turn @ (points - self.joint).T).T @ flip + flip @ self.joint + (0, 0, 0.85)

    def _depth(self, points: np.ndarray, faces: np.ndarray) -> np.ndarray:
        raster = rasterize_mesh(points.astype(np.float32), faces, self.intrinsics, SIZE, SIZE)
        return np.where(raster.covered, raster.depth, np.inf)


def bottle_table(folder: Path) -> str:
    """Pixels of the bottle that the head mattes keep, the mean over frames, and of the head that they lose."""
    with tempfile.TemporaryDirectory() as temporary:
        painted = Path(shutil.copytree(folder, Path(temporary) / "painted.capture"))
        source, capture = load_capture(folder), load_capture(painted)
        bottle, colors = _bottle(source.size)
        network = MattingModel()
        frames = range(capture.frame_count)
        for index in frames:
            frame, matte = read_frame(source, index), read_matte(source, index)
            alpha = matte[..., None] / 255
            behind = frame + bottle * (colors - frame)
            image = np.where(bottle > 0, alpha * foreground_colors(frame, matte) + (1 - alpha) * behind, frame)
            image = image.round().clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(capture.frame_path(index)), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
            cv2.imwrite(str(capture.matte_path(index)), network.matte(image))
        network.close()
        track = load_track(painted / "track.npz")
        model = find_head(track.head_name, track.head_fingerprint, "The track")
        cutter, plate, room = NeckCutter(model), find_plate(capture), find_room(capture, track, model)
        factor = capture.size / track.size
        intrinsics = track.intrinsics * np.array([[factor], [factor], [1.0]])
        counts = []
        for index in frames[::EVERY]:
            vertices, frame = (
                camera_vertices(cutter.head, track, range(index, index + 1))[0],
                read_frame(capture, index),
            )
            true = cutter.cut(read_matte(source, index), vertices, intrinsics)
            person = plate.remove_from(read_matte(capture, index), frame)
            for matte in (person, room.remove_from(person, frame, vertices, intrinsics)):
                cut = cutter.cut(matte, vertices, intrinsics)
                counts.append((((cut > 127) & (true < 64)).sum(), ((cut < 128) & (true > 192)).sum()))
    plain, without = np.array(counts).reshape(-1, 2, 2).mean(0)
    return (
        "| head mattes | pixels of the room | of the head lost |\n|---|--:|--:|\n"
        f"| by the clean plate | {plain[0]:.0f} | {plain[1]:.0f} |\n"
        f"| and by the head's motion | {without[0]:.0f} | {without[1]:.0f} |\n"
    )


def _bottle(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark bottle right of the head: coverage (size, size, 1) in [0, 1] and colours (size, size, 3)."""
    coverage, colors = np.zeros((512, 512), np.float32), np.full((512, 512, 3), (42, 30, 22), np.float32)
    cv2.rectangle(coverage, (425, 230), (483, 470), 1, -1)
    cv2.ellipse(coverage, (454, 230), (29, 30), 0, 0, 360, 1, -1)
    cv2.rectangle(coverage, (445, 150), (463, 220), 1, -1)
    cv2.rectangle(colors, (435, 235), (440, 455), (110, 95, 70), -1)
    cv2.rectangle(colors, (425, 320), (483, 400), (90, 60, 40), -1)
    coverage, colors = (cv2.resize(cv2.GaussianBlur(part, (0, 0), 1), (size, size)) for part in (coverage, colors))
    return coverage[..., None], colors


if __name__ == "__main__":
    main()
