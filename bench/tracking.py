"""Accuracy and speed of tracking, as Markdown tables.

Run as `python -m bench.tracking [VIDEO...] [--json FILE] [--keep FOLDER]`. Rendered people with known ground truth
(`known_person`) are captured and tracked like any footage and give errors in millimetres and degrees. Videos of real
people give speed, and errors relative to the detector's landmarks and the mattes.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from backend.correspondence.landmark_sets import reported_points
from backend.footage.build import make_capture
from backend.formats.capture import Capture, FrameFlag, read_matte
from backend.formats.track import Track, load_track, save_track
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.model import HeadModel
from backend.splatting.mesh import rasterize_mesh
from backend.tracking.after.camera_vertices import camera_vertices
from backend.tracking.after.residuals import project_landmarks
from backend.tracking.pipeline import track_capture

from .closure import detected_contact, lids_and_lips
from .known_person import KnownPerson, make_person

PEOPLE = ({"yaw": 35.0}, {"yaw": 60.0}, {"yaw": 30.0, "occluder": True}, {"yaw": 50.0}, {"yaw": 75.0})
"""Options of `make_person` for each rendered person; the seed is the index."""
CONFIGURATIONS = {"landmarks": False, "landmarks and skin": True}
"""Names of the configurations, and whether each has the photometric stage."""
_TRUTH_COLUMNS = (
    "vertex_mm",
    "rotation_deg",
    "worst_rotation_deg",
    "gaze_deg",
    "look_deg",
    "expression_error",
    "focal_error",
    "surface_px",
    "jitter_px",
    "landmark_px",
    "landmark_raw_px",
    "silhouette_iou",
    "lost_share",
    "turn_within",
)
_CLOSURE_COLUMNS = (
    "blinks",
    "blinks_found",
    "blinks_invented",
    "lids_shut_within_1mm",
    "lids_open_error_mm",
    "lips_met",
    "lips_met_within_1mm",
    "lips_open_error_mm",
    "lips_open_spread_mm",
)
_VIDEO_COLUMNS = (
    "frames",
    "fps_capture",
    "fps_track",
    "fps_capture_track",
    "landmark_px",
    "landmark_raw_px",
    "worst_px",
    "jitter_px",
    "silhouette_iou",
    "unsure",
)
_VIDEO_CLOSURE_COLUMNS = (
    "lips_met",
    "lips_met_within_1mm",
    "blinks",
    "blinks_found",
    "lids_shut_within_1mm",
    "lids_open_mm",
)
_SILHOUETTE_STEP = 5
"""Silhouettes are compared in every fifth frame."""


def known_people(model: HeadModel, folder: Path, frames: int, count: int) -> list[KnownPerson]:
    """The first `count` people, rendered into `folder` or loaded from there."""
    people = []
    for seed, settings in enumerate(PEOPLE[:count]):
        video, truth = folder / f"person_{seed}_{frames}.mp4", folder / f"person_{seed}_{frames}.npz"
        if truth.is_file():
            people.append(KnownPerson(video, load_track(truth, model)))
            continue
        people.append(make_person(model, video, seed=seed, frames=frames, **settings))
        save_track(people[-1].truth, truth)
    return people


def compare(track: Track, truth: Track, capture: Capture, model: HeadModel) -> dict[str, float]:
    """Errors of a track relative to the ground truth, which is in pixels of the uncropped video."""
    frames = range(track.frame_count)
    head = Head(model)
    ours, true = camera_vertices(head, track, frames), camera_vertices(head, truth, frames)
    distances, angles = [], []
    face = model.regions["face"]
    for tracked, known in zip(ours[:, face], true[:, face], strict=True):
        tracked, known = tracked - tracked.mean(0), known - known.mean(0)
        alignment, _ = Rotation.align_vectors(known, tracked)
        distances.append(np.linalg.norm(alignment.apply(tracked) - known, axis=1))
        angles.append(np.rad2deg(alignment.magnitude()))
    scale = capture.size / capture.crop[2]
    to_crop = np.array(((scale, 0, -capture.crop[0] * scale), (0, scale, -capture.crop[1] * scale), (0, 0, 1)))
    true_intrinsics = to_crop @ truth.intrinsics
    pixels = [
        np.einsum("fvc,dc->fvd", points[:, face[::8]], k)
        for points, k in ((ours, track.intrinsics), (true, true_intrinsics))
    ]
    pixels = [part[..., :2] / part[..., 2:] for part in pixels]
    gaze = _gaze(track) - _gaze(truth)
    open_eyes = (
        truth.expression[:, [i for i, n in enumerate(model.expression_names) if n.startswith("eyeBlink")]].max(1) < 0.3
    )
    gaze_cosine = (_gaze_directions(track) * _gaze_directions(truth)).sum(-1)[open_eyes].clip(-1, 1)
    view_angle = np.rad2deg(np.arccos(np.clip(_forward(truth) @ (0, 0, -1), -1, 1)))
    lost = (track.flags != 0) & (view_angle <= 60)
    overlaps = [
        _overlap(
            _silhouette(ours[i], model, track.intrinsics, capture.size),
            _silhouette(true[i], model, true_intrinsics, capture.size),
        )
        for i in frames[::_SILHOUETTE_STEP]
    ]
    named = [index for index, name in enumerate(model.expression_names) if not name.startswith("jaw")]
    return {
        "vertex_mm": 1000 * float(np.median(distances)),
        "rotation_deg": float(np.median(angles)),
        "worst_rotation_deg": float(np.quantile(angles, 0.95)),
        "gaze_deg": float(np.rad2deg(np.median(np.linalg.norm(gaze, axis=-1)[open_eyes]))),
        "look_deg": float(np.rad2deg(np.median(np.arccos(gaze_cosine)))),
        "expression_error": float(np.abs(track.expression - truth.expression)[:, named].mean()),
        "focal_error": float(abs(np.log(track.intrinsics[0, 0] / true_intrinsics[0, 0]))),
        "surface_px": float(np.median(np.linalg.norm(pixels[0] - pixels[1], axis=-1))),
        "jitter_px": float(np.median(np.linalg.norm(np.diff(pixels[0] - pixels[1], 2, axis=0), axis=-1))),
        "turn_within": _within(_skull(track) * _skull(truth).inv(), track),
        "lost_share": float(lost.mean()),
        **_landmark_errors(track, capture, model),
        "silhouette_iou": float(np.median(overlaps)),
    }


def _landmark_errors(track: Track, capture: Capture, model: HeadModel) -> dict[str, float]:
    """Median landmark errors in pixels at 512, with and without correction of the detector's bias."""
    raw = np.linalg.norm(project_landmarks(track, model) - capture.landmarks[..., :2], axis=-1)[:, reported_points()]
    scale = 512 / capture.size
    return {
        "landmark_px": float(np.nanmedian(track.residual)) * scale,
        "landmark_raw_px": float(np.nanmedian(np.nanmedian(raw[np.isfinite(raw).any(1)], axis=1))) * scale,
    }


def _within(error: Rotation, track: Track) -> float:
    """Share of the rotation errors about the camera's axes within two standard deviations as stated by the track.

    The share is 0.95 if the standard deviations are correct.
    """
    return float((np.abs(error.as_rotvec()) <= 2 * track.sigma[:, -6:-3]).mean())


def _skull(track: Track) -> Rotation:
    return Rotation.from_matrix(track.head_to_camera[:, :3, :3]) * Rotation.from_rotvec(track.rotations[:, 1])


def _gaze(track: Track) -> np.ndarray:
    return track.rotations[:, 3:, :2]


def _gaze_directions(track: Track) -> np.ndarray:
    """(F, 2, 3): gaze directions of the left and the right eye in camera space.

    They can be right even if the head's rotation is wrong.
    """
    head = Rotation.from_rotvec(track.rotations[:, 1]).as_matrix()
    eyes = Rotation.from_rotvec(track.rotations[:, 3:].reshape(-1, 3)).as_matrix().reshape(-1, 2, 3, 3)
    return ((track.head_to_camera[:, :3, :3] @ head)[:, None] @ eyes)[..., 2]


def _forward(track: Track) -> np.ndarray:
    """(F, 3): the face's forward direction in camera space."""
    return _skull(track).as_matrix()[:, :, 2]


def _silhouette(vertices: np.ndarray, model: HeadModel, intrinsics: np.ndarray, size: int) -> np.ndarray:
    """(size, size) bool: the pixels of the head without the neck."""
    neck = np.zeros(len(vertices), bool)
    neck[model.regions["neck"]] = True
    return rasterize_mesh(vertices, model.faces[~neck[model.faces].any(1)], intrinsics, size, size).covered


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / max((first | second).sum(), 1))


def measure_person(person: KnownPerson, model: HeadModel) -> dict[str, dict[str, float]]:
    """Errors and speed for one rendered person in each configuration."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            configuration: {
                **compare(track, person.truth, capture, model),
                **lids_and_lips(track, person.truth, model),
                **seconds,
            }
            for configuration, capture, track, seconds in _capture_and_track(person.video, Path(folder), model)
        }


def measure_video(video: Path, model: HeadModel) -> dict[str, dict[str, float]]:
    """Speed, landmark and silhouette figures of one real clip at 512 pixels in each configuration."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            configuration: {"frames": capture.frame_count, **seconds, **_errors_without_truth(capture, track, model)}
            for configuration, capture, track, seconds in _capture_and_track(video, Path(folder), model)
        }


def _errors_without_truth(capture: Capture, track: Track, model: HeadModel) -> dict[str, float]:
    overlaps = [_face_overlap(capture, track, model, index) for index in range(0, track.frame_count, _SILHOUETTE_STEP)]
    points = project_landmarks(track, model)[:, reported_points()]
    jitter = np.abs(np.diff(points, 2, axis=0))
    return {
        **_landmark_errors(track, capture, model),
        "worst_px": float(np.nanmax(track.residual)),
        "jitter_px": float(np.nanmedian(jitter)),
        "silhouette_iou": float(np.nanmedian(overlaps)),
        **detected_contact(track, capture, model),
        "unsure": int(np.sum(track.flags & FrameFlag.TRACK_UNSURE != 0)),
    }


def _face_overlap(capture: Capture, track: Track, model: HeadModel, index: int) -> float:
    """Overlap of mesh and matte between brows and chin, where the silhouette is skin and not hair."""
    vertices = camera_vertices(Head(model), track, range(index, index + 1))[0]
    brow, chin = (vertices[model.faces[model.landmark_faces[point]]].mean(0) for point in (9, 152))
    ends = [(track.intrinsics @ point)[:2] / point[2] for point in (brow, chin)]
    down = ends[1] - ends[0]
    rows, columns = np.mgrid[: capture.size, : capture.size] + 0.5
    along = ((columns - ends[0][0]) * down[0] + (rows - ends[0][1]) * down[1]) / (down @ down)
    band = (along > 0) & (along < 0.85)
    mesh = _silhouette(vertices, model, track.intrinsics, capture.size) & band
    return _overlap(mesh, (read_matte(capture, index) > 127) & band)


def _capture_and_track(
    video: Path, folder: Path, model: HeadModel
) -> Iterator[tuple[str, Capture, Track, dict[str, float]]]:
    """The capture and its track in each configuration, and the frames per second of both steps."""
    start = time.perf_counter()
    capture = make_capture(video, folder / "bench.capture")
    capture_seconds = time.perf_counter() - start
    count = capture.frame_count
    for configuration, photometric in CONFIGURATIONS.items():
        start = time.perf_counter()
        track = track_capture(capture, model, photometric=photometric)
        tracking_seconds = time.perf_counter() - start
        yield (
            configuration,
            capture,
            track,
            {
                "fps_capture": count / capture_seconds,
                "fps_track": count / tracking_seconds,
                "fps_capture_track": count / (capture_seconds + tracking_seconds),
            },
        )


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def _table(rows: dict[str, dict[str, float]], columns: tuple[str, ...]) -> None:
    print("| clip | " + " | ".join(columns) + " |\n|:--|" + "--:|" * len(columns))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[column]:.3g}" for column in columns) + " |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--frames", type=int, default=60, help="of each rendered clip")
    parser.add_argument("--people", type=int, default=len(PEOPLE), help="how many of the rendered people")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the rendered clips here, and use them again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    if options.people < 1 and not options.videos:
        parser.error("there is nothing to measure: name a video, or ask for --people 1 or more")
    model = load_head()
    print(f"Tracking with the head model {model.name}, {torch.get_num_threads()} threads, {platform.machine()}\n")

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        known = [
            (person.video.stem, measure_person(person, model))
            for person in known_people(model, folder, options.frames, options.people)
        ]
    clips = [(video.name, measure_video(video, model)) for video in options.videos]
    result: dict[str, object] = {}
    for configuration in CONFIGURATIONS:
        people, videos = ({name: figures[configuration] for name, figures in part} for part in (known, clips))
        mean, speed = _mean(list(people.values())), _mean(list((videos or people).values()))
        print(f"### By {configuration}\n")
        if people:
            for columns in (_TRUTH_COLUMNS, _CLOSURE_COLUMNS):
                _table(people | {"mean": mean}, columns)
        if videos:
            for columns in (_VIDEO_COLUMNS, _VIDEO_CLOSURE_COLUMNS):
                _table(videos, columns)
        # The last configuration is the default for users, so its figures are the headline figures.
        result |= {name: value for name, value in mean.items() if not name.startswith("fps")}
        result["fps_photometric" if CONFIGURATIONS[configuration] else "fps_capture_track"] = speed["fps_capture_track"]
        result[configuration] = {"mean": mean, "people": people, "clips": videos}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
