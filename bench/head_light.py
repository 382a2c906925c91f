"""How well the light on a head is found: rendered people whose lights are known.

    python -m bench.head_light [--people N] [--frames N]

Each person is filmed twice, turning by 45 degrees and nearly still; pose and shape of the head are the true ones. `key`
is the angle between the strongest lamp that was found and the true one, `gradient` that between the directions in which
the irradiance grows over the normals that face the camera, `seen` and `sphere` the error of the irradiance over these
normals and over all, by its mean, after one factor for all colours (the skin's albedo is not known). `even` is what an
even light would have in place of `seen`.
"""

from __future__ import annotations

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from backend.formats.capture import Capture
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.splatting.mesh import rasterize_mesh
from backend.tracking.after.camera_vertices import camera_vertices
from backend.tracking.after.head_light import estimate_light
from backend.tracking.observe.light_fit import HeadLight
from bench.known_person import SIZE, Scene

LUMINANCE = np.array((0.2126, 0.7152, 0.0722))


def sphere(count: int = 2000) -> np.ndarray:
    """(count, 3) evenly spread unit vectors."""
    index = np.arange(count) + 0.5
    z, turn = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    return np.stack((np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z), 1)


def angle(first: np.ndarray, second: np.ndarray) -> float:
    """Degrees between two vectors (3,)."""
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def errors(light: HeadLight, truth: Scene, skin: np.ndarray) -> dict[str, float]:
    """The figures of one estimate. `skin` (3,): the mean albedo, of which the estimate is a multiple."""
    normals = sphere()
    facing = normals[:, 2] < 0
    found, true = light.shading(normals) / skin, truth.irradiance(normals)

    def relative(shown: np.ndarray, which: np.ndarray) -> float:
        factor = (shown[which] * true[which]).sum() / (shown[which] ** 2).sum()
        return float(np.sqrt(((factor * shown[which] - true[which]) ** 2).mean()) / true[which].mean())

    gradients = (
        (each @ LUMINANCE - (each @ LUMINANCE)[facing].mean())[facing] @ normals[facing] for each in (found, true)
    )
    return {
        "key": angle(light.lamps[0], truth.key) if len(light.lamps) else np.nan,
        "gradient": angle(*gradients),
        "seen": relative(found, facing),
        "sphere": relative(found, np.ones(len(normals), bool)),
        "even": relative(np.ones_like(true), facing),
    }


def filmed(scene: Scene, folder: Path) -> Capture:
    """The frames of a scene and their mattes, without landmarks, which the light does not need."""
    count = scene.truth.frame_count
    capture = Capture(
        folder=folder,
        source_name="rendered",
        source_sha256="0" * 64,
        size=SIZE,
        fps=Fraction(25),
        crop=(0.0, 0.0, float(SIZE)),
        intrinsics=scene.truth.intrinsics.astype(np.float64),
        frame_numbers=np.arange(count),
        frame_times=np.arange(count) / 25,
        landmarks=np.zeros((count, 478, 3), np.float32),
        scores=np.zeros((count, 52), np.float32),
        detector_pose=np.zeros((count, 4, 4), np.float32),
        flags=np.zeros(count, np.int32),
    )
    for path in (capture.frame_path(0), capture.matte_path(0)):
        path.parent.mkdir(parents=True)
    vertices = camera_vertices(Head(scene.model), scene.truth, range(count))
    for index in range(count):
        covered = rasterize_mesh(vertices[index], scene.model.faces, capture.intrinsics, SIZE, SIZE).covered
        cv2.imwrite(str(capture.matte_path(index)), covered.astype(np.uint8) * 255)
        cv2.imwrite(str(capture.frame_path(index)), scene.image(index)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return capture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--frames", type=int, default=8)
    arguments = parser.parse_args()
    model, rows = load_head(), {45.0: [], 4.0: []}
    print(
        "| person | yaw | lamps | key ° | gradient ° | seen % | sphere % | even % |\n|---|---|---|---|---|---|---|---|"
    )
    for seed in range(1, arguments.people + 1):
        for yaw, found in rows.items():
            scene = Scene(model, seed, arguments.frames, yaw, oversampling=1)
            with tempfile.TemporaryDirectory() as folder:
                light = estimate_light(filmed(scene, Path(folder) / "person.capture"), scene.truth, model)
            found.append(errors(light, scene, np.array(scene.appearance.skin) ** 2.2))
            print(_row(str(seed), yaw, str(len(light.lamps)), found[-1]), flush=True)
    for yaw, found in rows.items():
        for name, summary in (("median", np.nanmedian), ("worst", np.nanmax)):
            print(_row(name, yaw, "", {key: float(summary([each[key] for each in found])) for key in found[0]}))


def _row(name: str, yaw: float, lamps: str, figures: dict[str, float]) -> str:
    shown = (f"{figures[key]:.1f}" for key in ("key", "gradient"))
    shares = (f"{100 * figures[key]:.1f}" for key in ("seen", "sphere", "even"))
    return f"| {name} | {yaw:g} | {lamps} | {' | '.join((*shown, *shares))} |"


if __name__ == "__main__":
    main()
