"""Eyelids and lips that are seen to be closed are closed on the mesh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.correspondence.landmark_sets import LID_PAIRS, LIP_PAIRS
from backend.footage.detector import SCORE_NAMES
from backend.formats.track import Track
from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.model.camera import Camera
from backend.tracking.model.frame_state import FrameState
from backend.tracking.model.landmark_surface import LinearBasis, landmark_surface
from backend.tracking.observe.gap_closure import closure_confidence
from backend.tracking.pipeline import track_capture
from backend.tracking.terms.contact import ContactTerm
from bench.closure import lid_gaps, lip_openings
from bench.known_clip import SyntheticClip, make_clip

FRAMES = 36
TURNED = torch.tensor((0.0, 0.8, 0.0))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


def standing(model: HeadModel, frames: int, turn: torch.Tensor | None = None) -> FrameState:
    """Faces at rest, a metre away."""
    turns = (torch.zeros(3) if turn is None else turn).expand(frames, 3)
    rotation = torch.diag(torch.tensor((1.0, -1.0, -1.0))) @ axis_angle_to_matrix(turns)
    place = torch.tensor((0.0, 0.0, 1.0)).expand(frames, 3)
    return FrameState(torch.zeros(frames, len(model.expression_names) + 7), rotation, place)


def seen(frames: int, *, left: np.ndarray, right: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """Landmarks (F, 478, 3) of which only the gaps mean something: pixels, at a metre and 1000 pixels of focal length,
    so mm.
    """
    points = np.zeros((frames, 478, 3))
    for pairs, gap in ((LID_PAIRS["left"], left), (LID_PAIRS["right"], right), (LIP_PAIRS, lips)):
        points[:, pairs[:, 1], 1] = gap[:, None]
    return points


CAMERA = Camera(torch.tensor(1000.0), torch.zeros(2), torch.zeros(3), 1.0)


def contact_of(model: HeadModel, landmarks: np.ndarray, state: FrameState) -> ContactTerm:
    person = landmark_surface(model).of_person(torch.zeros(model.shape_basis.shape[2]))
    contact = ContactTerm.from_closure(person, closure_confidence(landmarks, state, CAMERA.focal, slice(None)))
    assert contact is not None
    return contact


def test_a_gap_is_measured_by_the_persons_own_open_and_shut_one(model: HeadModel) -> None:
    frames = 50
    blink = np.full(frames, 12.0)
    blink[20:23] = 1.5
    narrow = np.full(frames, 6.0)
    narrow[30:33] = 0.8
    mouth = np.full(frames, 9.0)
    mouth[40:] = 0.5
    contact = contact_of(model, seen(frames, left=blink, right=narrow, lips=mouth), standing(model, frames))
    assert np.array_equal(np.flatnonzero(contact.closed[:, 0] > 0.9), (20, 21, 22))
    assert np.array_equal(np.flatnonzero(contact.closed[:, 1] > 0.9), (30, 31, 32))
    assert np.array_equal(np.flatnonzero(contact.closed[:, 2] > 0.9), np.arange(40, 50))
    open_ = np.ones(frames, bool)
    open_[20:23] = open_[30:33] = open_[40:] = False
    assert not contact.closed[open_].any()


def test_frames_without_a_face_say_nothing(model: HeadModel) -> None:
    landmarks = seen(20, left=np.full(20, 12.0), right=np.full(20, 12.0), lips=np.full(20, 0.2))
    landmarks[5:8] = np.nan
    shut = contact_of(model, landmarks, standing(model, 20)).closed
    assert not shut[5:8].any() and shut[0, 2] == 1


def test_the_eye_that_is_turned_away_blinks_with_the_other(model: HeadModel) -> None:
    frames = 30
    near, imagined = np.full(frames, 12.0), np.full(frames, 12.0)
    near[10] = 1.0
    for turn, near_side in ((TURNED, "right"), (-TURNED, "left")):
        gaps = {"left": imagined, "right": imagined, near_side: near}
        for state, together in ((standing(model, frames, turn), True), (standing(model, frames), False)):
            shut = contact_of(model, seen(frames, **gaps, lips=np.full(frames, 9.0)), state).closed[10, :2]
            assert (shut.min() == 1) == together


def test_the_gradient_of_contact_is_its_energys(model: HeadModel) -> None:
    random = torch.Generator().manual_seed(0)
    state = standing(model, 4)
    state = FrameState(
        (0.3 * torch.rand(state.face.shape, generator=random)).double(),
        state.rotation.double(),
        state.translation.double(),
    )
    contact = contact_of(model, seen(4, left=np.zeros(4), right=np.zeros(4), lips=np.zeros(4)), standing(model, 4))
    surface = contact.surface
    double = {
        name: LinearBasis(*(value.double() for value in vars(getattr(surface, name)).values()))
        for name in ("position", "lever")
    }
    contact = replace(
        contact,
        surface=replace(surface, **double),
        gap_weights=contact.gap_weights.double(),
        contact_gap=contact.contact_gap.double(),
        closed=torch.rand(4, 3, generator=random).double(),
    )
    gradient = contact.normal_equations(state, CAMERA).gradient
    step = 1e-6
    for parameter in range(state.face.shape[1]):
        moved = [state.face.clone() for _ in range(2)]
        moved[0][:, parameter] += step
        moved[1][:, parameter] -= step
        ahead, behind = (contact.energy(replace(state, face=face), CAMERA) for face in moved)
        torch.testing.assert_close((ahead - behind) / (2 * step), gradient[:, parameter], rtol=1e-4, atol=1e-2)


def test_lips_that_cross_are_pushed_apart_and_open_ones_left_alone(model: HeadModel) -> None:
    apart = np.full(1, 9.0)
    contact = contact_of(model, seen(1, left=apart, right=apart, lips=apart), standing(model, 1))
    state = standing(model, 1)
    for jaw, pushed in ((-0.03, True), (0.1, False)):
        state.face[:, -7] = jaw
        gradient = contact.normal_equations(state, CAMERA).gradient
        assert bool(contact.energy(state, CAMERA) > 0) == pushed
        assert bool(gradient[0, -13] < 0) == pushed


@pytest.fixture(scope="module")
def blinking(model: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A known clip as the detector sees such faces: shut lids and lips meet, nearly, and the scores are shy."""
    clip = make_clip(model, tmp_path_factory.mktemp("lids") / "lids.capture", frames=FRAMES)
    true = true_track(clip, model)
    landmarks, scores = clip.capture.landmarks.copy(), clip.capture.scores.copy()
    lids, lips = lid_gaps(true, model), lip_openings(true, model)
    for column, side in enumerate(("left", "right")):
        upper, lower = LID_PAIRS[side].T
        shut = np.flatnonzero(lids[:, column] < 1.5)
        landmarks[np.ix_(shut, upper)] = landmarks[np.ix_(shut, lower)] - (0, 1.5, 0)
        scores[:, SCORE_NAMES.index(f"eyeBlink{side.title()}")] *= 0.4
    met = np.flatnonzero(lips < 0.5)
    upper, lower = LIP_PAIRS.T
    landmarks[np.ix_(met, upper)] = landmarks[np.ix_(met, lower)] - (0, 0.5, 0)
    return clip, track_capture(replace(clip.capture, landmarks=landmarks, scores=scores), model), lips


def true_track(clip: SyntheticClip, model: HeadModel) -> Track:
    frames = len(clip.expression)
    return Track(
        model.name,
        model.fingerprint,
        clip.identity,
        clip.expression,
        clip.rotations,
        clip.head_to_camera,
        clip.capture.intrinsics,
        clip.capture.size,
        clip.capture.fps,
        np.zeros(frames),
        clip.capture.flags,
        frames,
    )


def test_blinks_are_found_and_none_invented(blinking: tuple, model: HeadModel) -> None:
    clip, track, _ = blinking
    gaps = lid_gaps(track, model)
    for column, side in enumerate(("Left", "Right")):
        blink = model.expression_names.index(f"eyeBlink{side}")
        shut = clip.expression[:, blink] >= 0.75
        assert shut.sum() >= 2
        assert track.expression[shut, blink].min() >= 0.5
        assert gaps[shut, column].max() <= 1.0
        assert track.expression[clip.expression[:, blink] < 0.05, blink].max() < 0.3


def test_lips_meet_where_they_are_seen_to_meet(blinking: tuple, model: HeadModel) -> None:
    _, track, true = blinking
    ours = lip_openings(track, model)
    assert (true < 0.5).sum() >= 3
    assert ours[true < 0.5].max() <= 0.3
    assert np.abs(ours - true)[true > 4].mean() < 1.5
    assert ours.min() > -0.5


def test_a_mouth_that_is_always_open_is_never_taken_for_shut(model: HeadModel) -> None:
    open_lids = np.full(20, 9.0)
    lips = contact_of(
        model, seen(20, left=open_lids, right=open_lids, lips=np.full(20, 6.0)), standing(model, 20)
    ).closed[:, 2]
    assert not lips.any()
