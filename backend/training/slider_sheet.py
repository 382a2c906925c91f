"""The scored sheet of sliders: an avatar's 52 sliders and 20 combinations in one image, with what the detector saw.

`slider_poses` says what is rendered, `slider_scores` what the figures mean.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np
import torch

from ..avatar.avatar import Avatar
from ..avatar.render import draw
from ..correspondence.landmark_render import FacePaint, shade
from ..errors import EffigyError
from ..footage.detector import Face
from ..formats.image_files import to_bytes, write_png
from ..formats.track import Track
from ..head.forward import landmark_valid, landmarks
from ..head.model import HeadModel
from ..progress import SILENT, Progress
from ..splatting.mesh import rasterize_mesh
from ..storage import write_beside
from .slider_poses import VALUES, SliderPose, pose_arrays, sheet_poses
from .slider_scores import SliderScore, SliderScores, score_sheet
from .turntable import GREY, WHITE, grid_of, labelled_tile, orbit_track

DETECTED_SIZE: Final = 512
"""Side of the pictures that the detector gets, whatever the size of the tiles."""
LIGHT: Final = np.array((0.3, -0.5, -0.8)) / np.linalg.norm((0.3, -0.5, -0.8))
SKIN: Final = np.array((0.80, 0.62, 0.53))
"""Of the mesh: towards the light in camera space, and sRGB."""
COLUMNS: Final = 5 * len(VALUES)
RED: Final = (190, 30, 30)


class Detector(Protocol):
    def detect(self, image: np.ndarray) -> list[Face]: ...


def scores_path(out: Path) -> Path:
    """The JSON file beside a sheet."""
    return Path(out).with_suffix(".json")


def render_scored_sliders(
    avatar: Avatar, detector: Detector, out: Path, *, size: int = 192, progress: Progress = SILENT
) -> SliderScores:
    """Render the poses of `sheet_poses` from the front to one PNG, and write their scores to a JSON file beside it.

    Raises an `EffigyError` for a head without ARKit's names, and where no face is found at rest.
    """
    if Path(out).suffix.lower() != ".png":
        raise EffigyError(f"The expressions are one image: give a name that ends in .png, not {Path(out).name}.")
    poses = sheet_poses()
    # From the front, where the detector is most reliable and the left and right sliders of a pair look alike.
    ahead = np.zeros(len(poses))
    track = orbit_track(avatar, ahead, ahead, *pose_arrays(avatar.head_model, poses))
    mesh = PaintedMesh.of(avatar, track)
    images: list[np.ndarray] = []
    faces: list[Face | None] = []
    mesh_faces: list[Face | None] = []
    for index in range(len(poses)):
        progress.raise_if_cancelled()
        image = to_bytes(draw(avatar, track, [index], max(DETECTED_SIZE, 2 * size))[0].over(WHITE))
        small = cv2.resize(image, (DETECTED_SIZE, DETECTED_SIZE), interpolation=cv2.INTER_AREA)
        faces.append(_largest(detector.detect(small)))
        mesh_faces.append(_largest(detector.detect(mesh.picture(index))))
        if faces[0] is None or mesh_faces[0] is None:
            subject = "avatar" if faces[0] is None else "head model's mesh"
            raise EffigyError(f"The detector finds no face on the {subject} at rest, so the sliders cannot be scored.")
        images.append(labelled_tile(image, size))
        progress.update("Sliders", index + 1, len(poses))
    scores, of_mesh = (
        score_sheet(poses, each, mesh.landmarks, landmark_valid(avatar.head_model), DETECTED_SIZE)
        for each in (faces, mesh_faces)
    )
    distances = zip(poses, avatar.distances(track.expression, track.rotations).tolist(), strict=True)
    # A later pose of a name has the larger value.
    scores = replace(scores, mesh=of_mesh, distances={pose.name: distance for pose, distance in distances})
    with (
        write_beside(Path(out), durable=False) as image_file,
        write_beside(scores_path(out), durable=False) as json_file,
    ):
        write_png(image_file, _sheet(poses, images, scores, size))
        json_file.write_text(json.dumps(scores.to_json(), indent=1) + "\n", encoding="utf-8")
    return scores


def _largest(faces: list[Face]) -> Face | None:
    return faces[0] if faces else None


@dataclass(frozen=True)
class PaintedMesh:
    """The rig's own mesh in the poses of a track, painted as the detector needs it."""

    model: HeadModel
    vertices: np.ndarray
    """(F, N, 3) camera space"""
    intrinsics: np.ndarray
    """(3, 3) of pictures of DETECTED_SIZE"""
    landmarks: np.ndarray
    """(F, 478, 2) pixels of these"""
    paint: FacePaint

    @staticmethod
    def of(avatar: Avatar, track: Track) -> PaintedMesh:
        model = avatar.head_model
        parts = (torch.as_tensor(part, device=avatar.device) for part in (track.expression, track.rotations))
        with torch.no_grad():
            posed = avatar.head(avatar.shaped, *parts).vertices.cpu()
        camera = track.head_to_camera.astype(np.float64)
        vertices = posed.numpy() @ camera[:, :3, :3].swapaxes(1, 2) + camera[:, None, :3, 3]
        intrinsics = np.diag((DETECTED_SIZE / track.size, DETECTED_SIZE / track.size, 1)) @ track.intrinsics
        pixels = landmarks(torch.from_numpy(vertices), model).numpy() @ intrinsics.T
        at_rest = landmarks(torch.from_numpy(model.template)[None].double(), model)[0].numpy()
        at_rest[~landmark_valid(model)] = np.nan
        paint = FacePaint.plain(model).with_features(at_rest)
        return PaintedMesh(model, vertices, intrinsics, pixels[..., :2] / pixels[..., 2:].clip(1e-6), paint)

    def picture(self, index: int) -> np.ndarray:
        """(DETECTED_SIZE, DETECTED_SIZE, 3) uint8."""
        vertices = self.vertices[index]
        raster = rasterize_mesh(vertices, self.model.faces, self.intrinsics, DETECTED_SIZE, DETECTED_SIZE)
        return shade(self.model, vertices, raster, self.paint, LIGHT, SKIN)[0]


def _sheet(poses: list[SliderPose], images: list[np.ndarray], scores: SliderScores, size: int) -> np.ndarray:
    """One line of sliders and their responses above each head; red where a slider is one of the worst."""
    figures = [("", GREY)]
    for score in scores.sliders:
        color = RED if score.name in scores.worst else GREY
        figures += [(_response(score, index), color) for index in range(len(VALUES) - 1)]
        figures.append((f"{_response(score, -1)}{_spill(score)}", color))
    figures += [(f"{_response(score, -1)}{_spill(score)}", GREY) for score in scores.combinations]
    tiles = []
    for pose, image, (line, color) in zip(poses, images, figures, strict=True):
        value = f" {pose.values[pose.name]:g}" if pose.name in pose.values else ""
        base = "".join(f" + {name}" for name in pose.base)
        tiles.append(labelled_tile(image, size, f"{pose.name}{value}{base}", line, color=color))
    single = 1 + len(VALUES) * len(scores.sliders)
    return np.concatenate((grid_of(tiles[1:single], COLUMNS), grid_of([tiles[0], *tiles[single:]], COLUMNS)))


def _response(score: SliderScore, index: int) -> str:
    response = score.responses[index]
    return "not measured" if response is None else f"{response:.2f}"


def _spill(score: SliderScore) -> str:
    return f"   spill {score.spill:.2f} {score.spilled}" if score.spilled and score.spill >= 0.1 else ""
