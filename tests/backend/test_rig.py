"""Several calibrated cameras that saw the same moments: one head pose for all, and sentences for what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rendered_person import Rendered, landmark_term, rendered, scene, true_state
from scipy.spatial.transform import Rotation

from backend.errors import EffigyError
from backend.footage.detector import SCORE_NAMES
from backend.formats.calibration import CalibratedCamera, camera_of, check_synchronised, crop_intrinsics, load_cameras
from backend.formats.capture import Capture, FrameFlag, save_capture
from backend.formats.track import load_track
from backend.head.formats import load_head
from backend.progress import SILENT, Progress
from backend.service.commands import run
from backend.service.requests import TrackRequest
from backend.tracking.model.frame_state import Bounds
from backend.tracking.model.viewpoint import Viewpoint
from backend.tracking.pipeline import track_captures
from backend.tracking.solve.fit_person import fit_person
from backend.tracking.solve.person import ClipFrames
from backend.tracking.terms.priors import priors_for
from backend.tracking.terms.seen_from import SeenFrom

pytestmark = pytest.mark.usefixtures("one_thread")
FRAMES = 16
UNIT = 2.5
"""Units of length of the calibration in a metre."""


def around(scene_of: Any, degrees: float) -> np.ndarray:
    """(4, 4): from the first camera to one that looks at the head from `degrees` to its side."""
    centre = np.array([0, 0, scene_of.truth.head_to_camera[:, 2, 3].mean()])
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("YX", (degrees, 4), degrees=True).as_matrix()
    motion[:3, 3] = centre - motion[:3, :3] @ centre
    return motion


MOTION = around(scene(3, FRAMES, 25.0, False), 40.0)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rendered, Rendered]:
    folder = tmp_path_factory.mktemp("rig")
    return (
        rendered(folder / "front.capture", frames=FRAMES, yaw=25.0),
        rendered(folder / "side.capture", frames=FRAMES, yaw=25.0, motion=MOTION),
    )


def entry(capture: Capture, world_to_camera: np.ndarray, **more: Any) -> dict[str, Any]:
    """What nerfstudio writes for a camera, whose axes are OpenGL's."""
    size, intrinsics = capture.size, capture.intrinsics
    return {
        "file_path": f"images/{capture.folder.stem}.png",
        "transform_matrix": (np.linalg.inv(world_to_camera) @ np.diag((1, -1, -1, 1))).tolist(),
        "fl_x": intrinsics[0, 0],
        "fl_y": intrinsics[1, 1],
        "cx": intrinsics[0, 2],
        "cy": intrinsics[1, 2],
        "w": size,
        "h": size,
    } | more


def calibration(rig: tuple[Rendered, Rendered], motion: np.ndarray = MOTION) -> list[dict[str, Any]]:
    """In a world that is turned, displaced and measured in other units."""
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler("XYZ", (30, -50, 70), degrees=True).as_matrix()
    world[:3, 3] = 1, 2, 3
    scaled = motion.copy()
    scaled[:3, 3] *= UNIT
    return [entry(rig[0].capture, world), entry(rig[1].capture, scaled @ world)]


def write(path: Path, frames: list[dict[str, Any]], **common: Any) -> Path:
    path.write_text(json.dumps({"camera_model": "OPENCV", **common, "frames": frames}))
    return path


def cameras_for(rig: tuple[Rendered, Rendered], folder: Path, frames: list[dict[str, Any]]) -> list[CalibratedCamera]:
    path = write(folder / "transforms.json", frames)
    cameras = load_cameras(path)
    return [camera_of(cameras, made.capture, path) for made in rig]


def head_motion(made: Rendered, track: Any) -> tuple[np.ndarray, np.ndarray]:
    """Degrees and metres (F,) between a track's head and the true one, at the face's centre."""
    model, results = load_head(), []
    for each in (track, made.truth):
        shaped = model.template + model.shape_basis @ each.identity
        neck = model.joint_regressor[1].astype(np.float64) @ shaped
        turned = Rotation.from_rotvec(each.rotations[:, 1]).as_matrix()
        camera = each.head_to_camera.astype(np.float64)
        face = shaped[model.regions["face"]].mean(0) - neck
        place = (turned @ face + neck)[:, None] @ camera[:, :3, :3].transpose(0, 2, 1)
        results.append((camera[:, :3, :3] @ turned, place[:, 0] + camera[:, :3, 3]))
    (rotation, place), (true_rotation, true_place) = results
    apart = Rotation.from_matrix(rotation @ true_rotation.transpose(0, 2, 1)).magnitude()
    return np.rad2deg(apart), np.linalg.norm(place - true_place, axis=1)


def test_a_term_of_another_camera_has_the_gradient_and_hessian_by_the_first_cameras_pose(rig) -> None:
    term, camera = landmark_term(rig[1])
    viewpoint = Viewpoint(*(torch.as_tensor(part, dtype=torch.float32) for part in (MOTION[:3, :3], MOTION[:3, 3])))
    state = true_state(rig[0].truth, camera.pivot)
    torch.testing.assert_close(
        vars(viewpoint.seen(state)), vars(true_state(rig[1].truth, camera.pivot)), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(vars(viewpoint.inverse().seen(viewpoint.seen(state))), vars(state), atol=1e-5, rtol=1e-5)
    seen = SeenFrom(term, camera, viewpoint).reweighted(state, camera, 3.0)
    equations = seen.normal_equations(state, camera)
    size = state.layout.size
    free = Bounds(*(torch.full((size - 6,), value) for value in (-9.0, 9.0)), torch.zeros(size, dtype=torch.bool))
    random = torch.Generator().manual_seed(0)
    for column in (3, size - 6, size - 4, size - 3, size - 1):
        step = torch.zeros(len(state), size)
        step[:, column] = 3e-4
        ends = [seen.energy(state.updated(sign * step, free), camera) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 6e-4
        allowed = 0.02 * float(slope.abs().max())
        torch.testing.assert_close(equations.gradient[:, column], slope, rtol=0.05, atol=allowed)
    direction = torch.randn(size, generator=random)
    assert (torch.einsum("p,fpq,q->f", direction, equations.hessian, direction) > 0).all()
    own = term.reweighted(viewpoint.seen(state), camera, 3.0).energy(viewpoint.seen(state), camera)
    torch.testing.assert_close(seen[2:5].energy(state[2:5], camera), own[2:5])


def test_one_track_of_the_head_serves_both_cameras(rig, tmp_path) -> None:
    said: list[str] = []

    class Said(Progress):
        def message(self, text: str) -> None:
            said.append(text)

    wrong = np.array([[1.2, 1, 1], [1, 1.2, 1], [1, 1, 1]])
    guessed = [replace(made.capture, intrinsics=made.capture.intrinsics * wrong) for made in rig]
    cameras = cameras_for(rig, tmp_path, calibration(rig))
    first, second = track_captures(guessed, load_head(), cameras=cameras, progress=Said())
    assert np.array_equal(first.expression, second.expression) and np.array_equal(first.rotations, second.rotations)
    assert np.array_equal(first.identity, second.identity)
    # The known focal lengths stay, and the unit of length is found by the size of the head.
    for made, track in zip(rig, (first, second), strict=True):
        assert track.intrinsics == pytest.approx(made.truth.intrinsics, rel=1e-4)
    [sentence] = [text for text in said if "unit of length" in text]
    assert float(sentence.split(" cm")[0].split()[-1]) == pytest.approx(100 / UNIT, rel=0.08)
    relative = second.head_to_camera.astype(np.float64) @ np.linalg.inv(first.head_to_camera.astype(np.float64))
    assert np.abs(relative[:, :3, :3] - MOTION[:3, :3]).max() < 1e-4
    assert np.ptp(relative[:, :3, 3], axis=0).max() < 1e-4
    # Both cameras together know the head's distance, and its motion better than each alone.
    alone = track_captures(guessed[1:], load_head())[0]
    (degrees, metres), (degrees_alone, metres_alone) = (head_motion(rig[1], track) for track in (second, alone))
    assert degrees.std() < 0.6 * degrees_alone.std() and metres.std() < 0.5 * metres_alone.std()
    assert np.median(metres) < 0.015, metres


def without_face(made: Rendered, frames: slice) -> Capture:
    capture = made.capture
    landmarks, flags = capture.landmarks.copy(), capture.flags.copy()
    landmarks[frames], flags[frames] = np.nan, FrameFlag.NO_FACE
    return replace(capture, landmarks=landmarks, flags=flags)


def test_a_moment_that_one_camera_misses_is_tracked_through_the_other(rig, tmp_path) -> None:
    captures = [without_face(rig[0], slice(4, 7)), without_face(rig[1], slice(5, 6))]
    cameras = cameras_for(rig, tmp_path, calibration(rig))
    first, second = track_captures(captures, load_head(), cameras=cameras)
    assert first.flags.tolist() == [0] * 5 + [int(FrameFlag.NO_FACE | FrameFlag.TRACK_UNSURE)] + [0] * 10
    assert second.flags.tolist() == [0] * 5 + [int(FrameFlag.NO_FACE | FrameFlag.TRACK_UNSURE)] + [0] * 10
    assert head_motion(rig[0], first)[0][[4, 6]].max() < 4


def test_a_calibration_of_the_whole_picture_fits_the_crop_at_any_resolution(rig) -> None:
    # The crop is the square at (300, 100) of a picture of 1600 x 900, scaled from 640 to 512 pixels.
    intrinsics = np.array([[700.0, 0, (800 - 300) * 0.8], [0, 700.0, (450 - 100) * 0.8], [0, 0, 1]])
    capture = replace(rig[0].capture, crop=(300.0, 100.0, 640.0), intrinsics=intrinsics)
    path = Path("transforms.json")
    for scale in (1.0, 0.5):
        numbers = {"fl_x": 1000, "fl_y": 1000, "cx": 810, "cy": 440, "w": 1600, "h": 900}
        more = {name: scale * value for name, value in numbers.items()}
        camera = _camera_from(entry(capture, np.eye(4), **more), path.name)
        found = crop_intrinsics(camera, capture)
        assert found == pytest.approx(np.array([[800, 0, 408], [0, 800, 272], [0, 0, 1]]))
    with pytest.raises(EffigyError, match="for pictures of 900 × 1600, its footage has 1600 × 900"):
        crop_intrinsics(_camera_from(entry(capture, np.eye(4), w=900, h=1600), path.name), capture)
    with pytest.raises(EffigyError, match="pixels that are not square"):
        crop_intrinsics(_camera_from(entry(capture, np.eye(4), **(numbers | {"fl_y": 1100})), path.name), capture)
    with pytest.raises(EffigyError, match=r"distorts its pictures by \d+ pixels where the head is"):
        crop_intrinsics(_camera_from(entry(capture, np.eye(4), **(numbers | {"k1": -0.3})), path.name), capture)
    crop_intrinsics(_camera_from(entry(capture, np.eye(4), **(numbers | {"k1": -0.01})), path.name), capture)


def _camera_from(values: dict[str, Any], name: str) -> CalibratedCamera:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        return load_cameras(write(Path(folder) / name, [values]))[0]


def test_a_camera_is_found_by_the_name_of_its_file_or_folder_and_must_stand_still(rig, tmp_path) -> None:
    capture, frames = rig[0].capture, calibration(rig)
    for file, found in (
        ("front.mp4", True),
        ("./images/FRONT/0001.png", True),
        ("rigs\\front\\7.jpg", True),
        ("rendered.mov", True),
        ("frontal/0001.png", False),
    ):
        path = write(tmp_path / "transforms.json", [frames[1] | {"file_path": file}])
        if found:
            camera_of(load_cameras(path), capture, path)
        else:
            with pytest.raises(EffigyError, match="has no camera for .*front.capture: .* “front” or “rendered”"):
                camera_of(load_cameras(path), capture, path)
    path = write(
        tmp_path / "transforms.json", [each | {"file_path": f"front/{n}.png"} for n, each in enumerate(frames)]
    )
    with pytest.raises(EffigyError, match="the camera of .*front.capture moves"):
        camera_of(load_cameras(path), capture, path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{}", "is a JSON file of another program, where a file of cameras is needed"),
        ('{"camera_model": "PINHOLE"}', "is not a file of cameras .it has no list of frames.: write it again"),
        ('{"camera_model": "PINHOLE", "frames": []}', "is damaged .it has 0 frames"),
        ('{"camera_model": "PINHOLE", "frames": [{"file_path": "a"}]}', "the frame a lacks numbers"),
        ('{"frames": [{"transform_matrix": [[1]]}]}', "a frame has no file_path"),
        ("no json", "its JSON cannot be read"),
    ],
)
def test_a_file_of_cameras_that_is_none_is_refused(content: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    path.write_text(content)
    with pytest.raises(EffigyError, match=sentence):
        load_cameras(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"camera_model": "OPENCV_FISHEYE"}, "is of the kind OPENCV_FISHEYE: undistort the footage"),
        ({"fl_x": -3}, "has numbers that no camera has"),
        ({"cx": float("nan")}, "has numbers that no camera has"),
        ({"k1": 1e300}, "has numbers that no camera has"),
        ({"transform_matrix": (np.eye(4) + 1e300 * np.eye(4, k=3)).tolist()}, "has numbers that no camera has"),
        ({"transform_matrix": [*np.eye(4)[:3].tolist(), [5, 5, 5, 1]]}, "is no rotation and translation"),
        ({"transform_matrix": np.diag((1.0, 1, 1, 0)).tolist()}, "is no rotation and translation"),
        ({"transform_matrix": np.diag((2.0, 1, 1, 1)).tolist()}, "is no rotation and translation"),
        ({"transform_matrix": np.diag((-1.0, 1, 1, 1)).tolist()}, "is no rotation and translation"),
        ({"w": "wide"}, "lacks numbers"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(change: dict[str, Any], sentence: str, rig, tmp_path: Path) -> None:
    path = write(tmp_path / "transforms.json", [entry(rig[0].capture, np.eye(4)) | change])
    with pytest.raises(EffigyError, match=sentence):
        load_cameras(path)


def test_captures_that_are_not_synchronised_are_refused(rig, tmp_path) -> None:
    first, second = (made.capture for made in rig)
    check_synchronised([first, second])
    late = replace(second, frame_times=second.frame_times + 7.0)
    check_synchronised([first, late])
    with pytest.raises(EffigyError, match="side.capture has 16 frames, .*front.capture 15"):
        check_synchronised([replace(first, frame_numbers=first.frame_numbers[1:]), second])
    gap = replace(second, frame_times=np.where(np.arange(FRAMES) > 8, 0.04, 0) + second.frame_times)
    with pytest.raises(EffigyError, match="Frame 9 of .*side.capture is 40 ms apart from that of .*front.capture"):
        check_synchronised([first, gap])


def test_a_late_camera_is_told_by_the_turning_head_and_a_wrong_calibration_by_its_place(tmp_path) -> None:
    """One camera saw all but the last three frames, the other all but the first three."""
    made = [
        rendered(tmp_path / "a.capture", frames=FRAMES, yaw=25.0, shown=slice(0, 13)),
        rendered(tmp_path / "b.capture", frames=FRAMES, yaw=25.0, shown=slice(3, 16), motion=MOTION),
    ]
    captures = [each.capture for each in made]
    with pytest.raises(EffigyError, match="not synchronised: the head turns 3 frames earlier in the first"):
        track_captures(captures, load_head(), cameras=cameras_for(tuple(made), tmp_path, calibration(tuple(made))))
    same = [made[0], replace(made[0], capture=replace(captures[0], folder=tmp_path / "c.capture"))]
    with pytest.raises(EffigyError, match=r"the head in .*c.capture is turned 4\d degrees away"):
        track_captures(
            [each.capture for each in same],
            load_head(),
            cameras=cameras_for(tuple(same), tmp_path, calibration(tuple(same))),
        )


def test_the_command_tracks_a_rig_and_names_the_capture_without_a_camera(rig, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    folders = tuple(made.capture.folder for made in rig)
    for made in rig:
        save_capture(made.capture)
    path = write(tmp_path / "transforms.json", calibration(rig))
    run(TrackRequest(folders, cameras=path), SILENT)
    first, second = (load_track(folder / "track.npz") for folder in folders)
    assert np.array_equal(first.rotations, second.rotations)
    degrees, metres = head_motion(rig[1], second)
    assert degrees.std() < 0.3 and np.median(metres) < 0.015
    with pytest.raises(EffigyError, match="has no camera for .*side.capture"):
        run(TrackRequest(folders, cameras=write(path, calibration(rig)[:1])), SILENT)
    with pytest.raises(EffigyError, match="One camera needs no file of cameras"):
        run(TrackRequest(folders[:1], cameras=path), SILENT)


def test_a_known_focal_length_stays_in_the_fit_of_the_person(rig) -> None:
    term, camera = landmark_term(rig[0])
    priors = priors_for(load_head(), rig[0].capture.scores, SCORE_NAMES, 25.0)
    camera = camera.with_focal(1.1 * camera.focal)
    state = true_state(rig[0].truth, camera.pivot)
    clip = ClipFrames(term, priors.term(), priors.bounds(), camera, state, focal_known=True)
    person, _ = fit_person([clip], 4)
    assert float(person.focals[0]) == pytest.approx(float(camera.focal), rel=1e-5) and person.focal_sigma(0) < 1e-3
    free, _ = fit_person([replace(clip, focal_known=False)], 4)
    assert abs(float(free.focals[0] / camera.focal) - 1) > 1e-3 and free.focal_sigma(0) > 0.1
