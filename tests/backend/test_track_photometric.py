"""The photometric stage: pictures bring back what landmarks got wrong, and only those pictures that may."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from rendered_person import Rendered, landmark_term, paint, rendered, true_state
from scipy.spatial.transform import Rotation

from backend.errors import Cancelled
from backend.footage.detector import SCORE_NAMES
from backend.formats.capture import FrameFlag
from backend.formats.track import Track
from backend.head.formats import load_head
from backend.head.model import NECK, HeadModel
from backend.progress import SILENT, Progress
from backend.tracking import photometric_stage
from backend.tracking.model.frame_state import FrameState
from backend.tracking.observe.skin_samples import PATCHES
from backend.tracking.photometric_stage import fit_photometric_model
from backend.tracking.pipeline import PERSON_ITERATIONS, track_capture, track_captures
from backend.tracking.solve.fit_person import FOCAL_BIAS, FOCAL_SIGMA, ClipFrames, Person, fit_person
from backend.tracking.terms.priors import priors_for
from bench.tracking import compare

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = 14


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


def _before_and_after(
    model: HeadModel, made: Rendered, monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[Person, FrameState], tuple[Person, FrameState], FrameState]:
    """Person and frames by landmarks alone and after the photometric rounds, and the true frames."""
    landmarks, camera = landmark_term(made)
    priors = priors_for(model, made.capture.scores, SCORE_NAMES, 25.0)
    truth = true_state(made.truth, camera.pivot)
    clip = ClipFrames(landmarks, priors.term(), priors.bounds(), camera, truth)
    person, (state,) = fit_person([clip], PERSON_ITERATIONS)
    ends: list[FrameState] = []

    def kept(*arguments: object) -> tuple[Person, list[FrameState]]:
        found = fit_person(*arguments)
        ends[:] = found[1]
        return found

    monkeypatch.setattr(photometric_stage, "fit_person", kept)
    fitted = fit_photometric_model(model, [clip], [made.capture], [np.arange(FRAMES)], person, [state], SILENT)
    return (person, state), (fitted.person, ends[0]), truth


def _share_of_turn(state: FrameState, truth: FrameState) -> float:
    """By how much a head turns to the side for each degree that it does."""
    yaws = [torch.atan2(at.rotation[:, 0, 2], -at.rotation[:, 2, 2]).double() for at in (state, truth)]
    found, known = (yaw - yaw.mean() for yaw in yaws)
    return float((found * known).sum() / (known * known).sum())


def _size(model: HeadModel, person: Person) -> float:
    face = (model.template + model.shape_basis @ person.identity.numpy())[model.regions["face"]]
    return float(np.linalg.norm(face - face.mean(0)))


def test_rotations_that_landmarks_show_too_small_are_corrected_by_the_skin(
    model: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rendered(tmp_path / "shrunk.capture", frames=FRAMES, yaw=50.0, shrink=0.07)
    (before, turned), (after, aligned), truth = _before_and_after(model, made, monkeypatch)
    missing = 1 - _share_of_turn(turned, truth)
    assert missing > 0.05
    assert abs(1 - _share_of_turn(aligned, truth)) < missing / 2
    assert abs(_size(model, after) / _size(model, before) - 1) < 0.01
    # Turns that are too small look like a lens that is too wide.
    errors = [abs(np.log(float(person.focals[0] / made.truth.intrinsics[0, 0]))) for person in (before, after)]
    assert max(errors) < FOCAL_BIAS, errors
    assert before.focal_sigma(0) <= after.focal_sigma(0) < 1.1 * before.focal_sigma(0)


def test_a_wrong_guess_of_the_focal_length_is_corrected_and_the_head_keeps_its_size(
    model: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rendered(tmp_path / "lens.capture", frames=FRAMES, yaw=50.0, lens=1.3)
    (before, _), (after, aligned), truth = _before_and_after(model, made, monkeypatch)
    errors = [abs(np.log(float(person.focals[0] / made.truth.intrinsics[0, 0]))) for person in (before, after)]
    # Landmarks find it too: a lens that stays near its guess lies in the valley that `FrameState.dolly_zoomed`
    # straightens.
    assert max(errors) < np.log(1.3) / 2, errors
    assert abs(_size(model, after) / _size(model, before) - 1) < 0.01
    assert abs(1 - _share_of_turn(aligned, truth)) < 0.035
    assert 0 < after.focal_sigma(0) < FOCAL_SIGMA
    assert before.patch_offsets.shape == (0, 3) and after.patch_offsets.shape == (PATCHES, 3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Landmarks that tremble as those of a noisy picture do."""
    return rendered(tmp_path_factory.mktemp("clip") / "trembling.capture", frames=20, yaw=30.0, tremble=0.7)


@pytest.fixture(scope="module")
def track(clip: Rendered, model: HeadModel) -> Track:
    return track_capture(clip.capture, model, photometric=True)


def test_photometric_alignment_reduces_jitter(clip: Rendered, track: Track, model: HeadModel) -> None:
    plain = compare(track_capture(clip.capture, model), clip.truth, clip.capture, model)
    aligned = compare(track, clip.truth, clip.capture, model)
    assert aligned["jitter_px"] < 0.75 * plain["jitter_px"]
    assert aligned["surface_px"] < 0.8 * plain["surface_px"]
    assert aligned["vertex_mm"] < 1.1 * plain["vertex_mm"]
    assert np.isfinite(track.sigma).all() and not track.flags.any()


def test_held_out_images_influence_neither_the_person_nor_training_frames(
    clip: Rendered, track: Track, model: HeadModel, tmp_path: Path
) -> None:
    capture = replace(clip.capture, folder=tmp_path / "dark.capture")
    (capture.folder / "frames").mkdir(parents=True)
    (capture.folder / "mattes").symlink_to(clip.capture.folder / "mattes")
    for index in range(capture.training_count):
        capture.frame_path(index).symlink_to(clip.capture.frame_path(index))
    for index in range(capture.training_count, capture.frame_count):
        paint(capture, index, np.zeros((512, 512, 3), np.uint8))
    other = track_capture(capture, model, photometric=True)
    assert np.array_equal(other.identity, track.identity)
    assert np.array_equal(other.intrinsics, track.intrinsics)
    training = slice(capture.training_count)
    for name in ("expression", "rotations", "head_to_camera", "residual", "sigma"):
        assert np.array_equal(getattr(other, name)[training], getattr(track, name)[training]), name
    # Held-out frames themselves see nothing in the dark and stand where landmarks have them.
    assert not np.array_equal(
        other.head_to_camera[capture.training_count :], track.head_to_camera[capture.training_count :]
    )
    assert np.isfinite(other.head_to_camera).all()


def test_clips_of_one_person_are_aligned_together_and_lost_frames_stay_lost(model: HeadModel, tmp_path: Path) -> None:
    clips = [
        rendered(tmp_path / f"{part.start}.capture", frames=20, yaw=30.0, shown=part, lens=lens)
        for part, lens in ((slice(0, 8), 1.0), (slice(12, 20), 1.1))
    ]
    lost = clips[1].capture
    seen, flags = lost.landmarks.copy(), lost.flags.copy()
    seen[3:5], flags[3:5] = np.nan, FrameFlag.NO_FACE
    for index in (3, 4):
        paint(lost, index, np.full((512, 512, 3), 90, np.uint8))
    captures = [clips[0].capture, replace(lost, landmarks=seen, flags=flags)]
    first, second = track_captures(captures, model, photometric=True)
    assert np.array_equal(first.identity, second.identity)
    assert (first.frame_count, second.frame_count) == (8, 8)
    assert (second.flags[3:5] & FrameFlag.NO_FACE).all() and np.isnan(second.residual[3:5]).all()
    assert not first.flags.any() and not np.delete(second.flags, (3, 4)).any()
    assert np.linalg.norm(np.diff(second.head_to_camera[:, :3, 3], axis=0), axis=1).max() < 0.03
    for found, known in ((first, clips[0]), (second, clips[1])):
        errors = compare(found, known.truth, known.capture, model)
        assert errors["rotation_deg"] < 3.5 and errors["surface_px"] < 3


@pytest.mark.parametrize("regions", ((), ("ears",)))
def test_a_photograph_is_tracked_also_on_a_head_without_ears(
    regions: tuple[str, ...], model: HeadModel, tmp_path: Path
) -> None:
    photograph = rendered(tmp_path / "one.capture", frames=20, yaw=30.0, shown=slice(4, 5))
    own = replace(model, regions={**model.regions, **{name: np.zeros(0, np.int32) for name in regions}})
    found = track_capture(photograph.capture, own, photometric=True)
    assert found.frame_count == 1 and not found.flags.any()
    turns = [
        Rotation.from_matrix(at.head_to_camera[0, :3, :3]) * Rotation.from_rotvec(at.rotations[0, NECK])
        for at in (found, photograph.truth)
    ]
    assert np.rad2deg((turns[0] * turns[1].inv()).magnitude()) < 6
    plain = track_capture(photograph.capture, own)
    # One picture agrees with itself, wherever the head stands: it moves nothing far.
    assert np.linalg.norm(found.head_to_camera[0, :3, 3] - plain.head_to_camera[0, :3, 3]) < 0.1


@pytest.mark.parametrize("when", (2, photometric_stage.PERSON_ITERATIONS * len(photometric_stage.PERSON_BLURS) + 2))
def test_the_photometric_stage_can_be_cancelled(when: int, model: HeadModel, tmp_path: Path) -> None:
    """While it is learned, and while frames are aligned."""

    class Stop(Progress):
        seen = late = 0
        shares: ClassVar[list[float]] = []

        def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
            self.late += self.cancelled()
            self.shares += [done / total] if stage == "skin" else []
            self.seen += stage in ("skin", "alignment")

        def cancelled(self) -> bool:
            return self.seen >= when

    stop, short = Stop(), rendered(tmp_path / "short.capture", frames=20, yaw=30.0, shown=slice(0, 5))
    with pytest.raises(Cancelled):
        track_capture(short.capture, model, photometric=True, progress=stop)
    assert stop.seen == when and stop.late == 0
    # Most of a round has passed before its first iteration.
    assert stop.shares == sorted(stop.shares) and stop.shares[0] == 0 < 0.1 < stop.shares[1]
    assert when == 2 or stop.shares[-1] > 0.9
