"""The irises are found where they are in the picture, and nothing is claimed where they are not seen."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from backend.correspondence.landmark_sets import LEFT_IRIS, LEFT_LIDS, LID_PAIRS, RIGHT_IRIS, RIGHT_LIDS, solved_points
from backend.errors import Cancelled
from backend.formats.capture import Capture
from backend.head.formats import load_head
from backend.head.model import EYE_L, HeadModel
from backend.head.rotations import axis_angle_to_matrix
from backend.progress import Progress
from backend.tracking.model.camera import Camera
from backend.tracking.model.frame_state import Bounds, FrameState
from backend.tracking.model.landmark_surface import landmark_surface
from backend.tracking.model.limbus_surface import limbus_surface
from backend.tracking.model.prediction import predict
from backend.tracking.observe.iris_detection import detect_irises
from backend.tracking.terms.iris import IrisTerm
from backend.tracking.terms.landmarks import LandmarkTerm

SIZE, FOCAL = 512, 1000.0
RADIUS = 0.92
"""Of the drawn irises, in radii of the head model's."""
SKIN, WHITE, IRIS = (190, 140, 120), (225, 222, 218), (70, 90, 100)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


def standing(model: HeadModel, frames: int) -> FrameState:
    """Faces at rest, 60 cm away, looking straight ahead."""
    place = torch.tensor((0.0, 0.0, 0.6)).expand(frames, 3)
    return FrameState(
        torch.zeros(frames, len(model.expression_names) + 7),
        torch.diag(torch.tensor((1.0, -1.0, -1.0))).expand(frames, 3, 3),
        place,
    )


def filmed(model: HeadModel, folder: Path, shifts: np.ndarray, *, opening: float = 0.9, skin: tuple = SKIN) -> tuple:
    """Eyes drawn with the irises displaced by `shifts` (F, 2) pixels from where a head at rest has them, lids `opening`
    diameters of an iris apart; the capture, the state, the camera, the irises of a head at rest and the landmark term.
    """
    frames = len(shifts)
    places = landmark_surface(model)
    surface = places.of_points(solved_points(places.position.rest.numpy(), places.valid, 240))
    pivot = torch.tensor((0.0, 0.0, 0.03))
    state = standing(model, frames)
    intrinsics = np.array(((FOCAL, 0, SIZE / 2), (0, FOCAL, SIZE / 2), (0, 0, 1)))
    person = limbus_surface(model).of_person(torch.zeros(model.shape_basis.shape[2]))
    camera = Camera.from_intrinsics(intrinsics, SIZE, pivot)
    shown = predict(person, state, camera).numpy()[0].astype(float)
    size = np.linalg.norm(shown[1] - shown[0])
    landmarks = np.full((frames, 478, 3), 100.0)
    (folder / "frames").mkdir(parents=True)
    for index, shift in enumerate(shifts):
        large = np.empty((SIZE * 4, SIZE * 4, 3), np.uint8)
        large[:] = skin
        for lids, middle in ((LEFT_LIDS, shown[0]), (RIGHT_LIDS, shown[3])):
            across = np.cos(np.linspace(0, 2 * np.pi, 16, endpoint=False)) * 2.2 * size
            down = np.sin(np.linspace(0, 2 * np.pi, 16, endpoint=False)) * opening * size
            outline = np.concatenate((lids[:9], lids[:8:-1]))
            landmarks[index, outline, :2] = middle + np.stack((across, down), 1)
            for pair in LID_PAIRS["left" if lids is LEFT_LIDS else "right"]:
                landmarks[index, pair[0], 0] = landmarks[index, pair[1], 0]
            eye = np.zeros(large.shape[:2], np.uint8)
            fine = np.linspace(0, 2 * np.pi, 200)
            lens = middle + np.stack((np.cos(fine) * 2.2 * size, np.sin(fine) * opening * size), 1)
            cv2.fillPoly(eye, [np.round(lens * 4).astype(int)], 255)
            large[eye > 0] = WHITE
            disc = np.zeros_like(eye)
            place = tuple(np.round((middle + shift) * 64).astype(int).tolist())
            cv2.circle(disc, place, round(RADIUS * size * 64), 255, -1, shift=4)
            large[(eye > 0) & (disc > 0)] = IRIS
        noise = np.random.default_rng(index).normal(0, 2, (SIZE, SIZE, 3))
        picture = cv2.resize(large, (SIZE, SIZE), interpolation=cv2.INTER_AREA) + noise
        cv2.imwrite(str(folder / "frames" / f"{index:06d}.png"), picture.clip(0, 255).astype(np.uint8)[..., ::-1])
    capture = Capture(
        folder=folder,
        source_name="drawn",
        source_sha256="0" * 64,
        size=SIZE,
        fps=Fraction(30),
        crop=(0.0, 0.0, float(SIZE)),
        intrinsics=intrinsics,
        frame_numbers=np.arange(frames),
        frame_times=np.arange(frames) / 30,
        landmarks=landmarks.astype(np.float32),
        scores=np.zeros((frames, 52), np.float32),
        detector_pose=np.zeros((frames, 4, 4), np.float32),
        flags=np.zeros(frames, np.int32),
        frame_suffix=".png",
    )
    landmarks_term = LandmarkTerm.from_detections(capture.landmarks, surface, camera)
    return capture, state, camera, shown[::3], landmarks_term


def seen(
    model: HeadModel, capture: Capture, state: FrameState, camera: Camera, face_found: np.ndarray | None = None
) -> IrisTerm:
    person = limbus_surface(model).of_person(torch.zeros(model.shape_basis.shape[2]))
    frames = np.arange(capture.frame_count)
    found = np.ones(len(frames), bool) if face_found is None else face_found
    irises = detect_irises(capture, person, state, camera, found, frames)
    return IrisTerm.from_detection(person, irises, state.face.device)


def test_irises_are_found_within_a_third_of_a_pixel(model: HeadModel, tmp_path: Path) -> None:
    shifts = np.array(((0, 0), (3.3, 0), (-4.2, 0.4), (0.5, 2.6), (-0.3, -2.4), (2.1, 1.7), (-2.6, -1.2)))
    capture, state, camera, middles, landmarks = filmed(model, tmp_path / "c", shifts)
    irises = seen(model, capture, state, camera)
    errors = irises.centres.numpy() - (middles + shifts[:, None])
    assert np.abs(errors).max() < 0.35
    assert irises.found.min() > 0.8
    weights = irises.replace_landmarks(landmarks).weights
    own = np.isin(landmarks.surface.points, np.concatenate((LEFT_IRIS, RIGHT_IRIS)))
    assert weights[:, own].max() < 0.3 * landmarks.weights[:, own].min()
    assert torch.equal(weights[:, ~own], landmarks.weights[:, ~own])


def test_a_low_lid_leaves_the_height_less_certain_than_the_side(model: HeadModel, tmp_path: Path) -> None:
    capture, state, camera, _, _ = filmed(model, tmp_path / "c", np.zeros((3, 2)), opening=0.6)
    roots = seen(model, capture, state, camera).roots.numpy()
    precision = roots.swapaxes(-1, -2) @ roots
    assert (precision[..., 0, 0] > 1.5 * precision[..., 1, 1]).all()


def test_nothing_is_claimed_of_shut_eyes_nor_without_contrast_nor_a_face(model: HeadModel, tmp_path: Path) -> None:
    capture, state, camera, _, _ = filmed(model, tmp_path / "shut", np.zeros((3, 2)), opening=0.2)
    irises = seen(model, capture, state, camera)
    assert not irises.found.any() and not irises.roots.any()
    capture, state, camera, _, _ = filmed(model, tmp_path / "open", np.zeros((3, 2)))
    grey = np.full((SIZE, SIZE, 3), 120, np.uint8)
    for index in range(2):
        cv2.imwrite(str(capture.frame_path(index)), grey)
    irises = seen(model, capture, state, camera, np.array((True, True, False)))
    assert irises.found.max() < 0.05
    assert irises.roots.abs().max() < 0.2


def test_the_limbus_turns_about_the_eyes_joint(model: HeadModel) -> None:
    surface = limbus_surface(model).of_person(torch.zeros(model.shape_basis.shape[2]))
    state = standing(model, 1)
    state.face[:, -4:-2] = torch.tensor((0.2, -0.4))
    shown = predict(surface, state, Camera(torch.tensor(FOCAL), torch.zeros(2), torch.zeros(3), 1.0))[0, 0].numpy()
    joint = model.joint_regressor[EYE_L].astype(np.float64) @ model.template
    arm = surface.lever.rest[0].numpy()
    assert 0.010 < arm[2] < 0.018
    place = joint + axis_angle_to_matrix(torch.tensor((0.2, -0.4, 0.0))).numpy() @ arm
    place = place * (1, -1, -1) + (0, 0, 0.6)
    assert np.allclose(shown, FOCAL * place[:2] / place[2], atol=0.05)


def test_a_head_without_eyeballs_has_no_limbus(model: HeadModel) -> None:
    blind = model.skinning.copy()
    blind[:, EYE_L] = 0
    assert limbus_surface(replace(model, skinning=blind)) is None


def test_the_gradient_of_the_irises_is_their_energys(model: HeadModel, tmp_path: Path) -> None:
    capture, state, camera, _, _ = filmed(model, tmp_path / "c", np.array(((1.0, -0.5), (-2.0, 1.0))))
    irises = seen(model, capture, state, camera)
    equations = irises.normal_equations(state, camera)
    gradient, hessian = equations.gradient, equations.hessian
    assert torch.linalg.eigvalsh(hessian.double()).min() > -1e-6 * hessian.max()
    for parameter in (*range(-10, -6), -3, -2):
        step = torch.zeros(2, gradient.shape[1])
        step[:, parameter] = 2e-3 if parameter < -6 else 2e-4
        bound = torch.full((state.face.shape[1],), 10.0)
        bounds = Bounds(-bound, bound, torch.zeros(state.layout.size, dtype=torch.bool))
        ahead, behind = (irises.energy(state.updated(sign * step, bounds), camera) for sign in (1, -1))
        numeric = (ahead - behind) / (2 * step[:, parameter])
        torch.testing.assert_close(numeric, gradient[:, parameter], rtol=0.03, atol=0.02 * float(gradient.abs().max()))


def test_the_search_for_irises_can_be_stopped(model: HeadModel, tmp_path: Path) -> None:
    class Stop(Progress):
        def cancelled(self) -> bool:
            return True

    capture, state, camera, _, _ = filmed(model, tmp_path / "c", np.zeros((2, 2)))
    person = limbus_surface(model).of_person(torch.zeros(model.shape_basis.shape[2]))
    with pytest.raises(Cancelled):
        detect_irises(capture, person, state, camera, np.ones(2, bool), np.arange(2), Stop())
