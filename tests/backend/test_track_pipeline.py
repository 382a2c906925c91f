"""What the tracking pipeline decides around the solver: frames of the person, scales, sentences, cancellation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backend.errors import Cancelled
from backend.formats.capture import FrameFlag
from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.progress import Progress
from backend.tracking.after.residuals import flag_frames
from backend.tracking.observe import shot_cuts
from backend.tracking.pipeline import (
    FOCAL_SIGMA,
    PERSON_FRAMES,
    _cuts_sentence,
    _focal_sentence,
    _person_frames,
    _surfaces,
    track_captures,
)
from backend.tracking.prepared_clip import PreparedClip
from backend.tracking.solve.fit_frames import ROBUST_SCALES, warm_start_robust_scale
from backend.tracking.terms.term import total_energy, total_equations
from bench.known_clip import SyntheticClip, make_clip

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def clip(model: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> SyntheticClip:
    return make_clip(model, tmp_path_factory.mktemp("clip") / "known.capture", frames=12)


def captures_of(*counts: int) -> list:
    return [SimpleNamespace(training_count=count) for count in counts]


def test_longer_captures_make_up_for_those_that_are_shorter_than_their_share() -> None:
    few = PERSON_FRAMES // 10
    assert _person_frames(captures_of(10 * PERSON_FRAMES)) == [PERSON_FRAMES]
    assert _person_frames(captures_of(few)) == [few]
    # In the order of the captures, whichever of them is the short one.
    for counts in ((few, 9000, 8000), (9000, few, 8000), (8000, 9000, few)):
        chosen = _person_frames(captures_of(*counts))
        rest = PERSON_FRAMES - few
        assert sum(chosen) == PERSON_FRAMES and chosen[counts.index(few)] == few
        assert all(share in (rest // 2, rest - rest // 2) for share, count in zip(chosen, counts) if count != few)
    assert _person_frames(captures_of(0, 5)) == [1, 5]


def test_a_fit_goes_from_nearly_least_squares_to_robust_and_a_warm_start_skips_the_beginning() -> None:
    assert ROBUST_SCALES == (12.0, 12.0, 8.0, 5.0, 4.0, 3.0)
    assert [warm_start_robust_scale(iteration) for iteration in range(6)] == [8.0, 5.0, 4.0, 3.0, 3.0, 3.0]


def test_blocks_of_the_shared_parameters_are_made_only_on_request(clip: SyntheticClip, model: HeadModel) -> None:
    prepared = PreparedClip(clip.capture, model, _surfaces(model, "cpu")[1], 6)
    frames = prepared.person_frames()
    terms = [frames.landmarks, frames.prior]
    terms = [term.reweighted(frames.state, frames.camera, 8.0) for term in terms]
    alone = total_equations(terms, frames.state, frames.camera)
    together = total_equations(terms, frames.state, frames.camera, shared=True)
    assert alone.shared is None and together.shared is not None
    parts = [term.normal_equations(frames.state, frames.camera) for term in terms]
    assert all(part.shared is None for part in parts)
    torch.testing.assert_close(alone.gradient, parts[0].gradient + parts[1].gradient)
    torch.testing.assert_close(alone.hessian, parts[0].hessian + parts[1].hessian)
    torch.testing.assert_close(alone.energy, parts[0].energy + parts[1].energy)
    energies = sum(term.energy(frames.state, frames.camera).sum() for term in terms)
    torch.testing.assert_close(total_energy(terms, frames.state, frames.camera), energies)


def test_cuts_are_named_and_after_twelve_only_hinted_at() -> None:
    capture = SimpleNamespace(source_name="film.mp4")
    assert _cuts_sentence(capture, np.array([7])).startswith("film.mp4 is cut before frame 7:")
    twelve = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"
    assert f"frame {twelve}:" in _cuts_sentence(capture, np.arange(1, 13))
    assert f"frame {twelve} …:" in _cuts_sentence(capture, np.arange(1, 14))


def test_the_focal_length_is_said_to_be_determined_or_not() -> None:
    capture = SimpleNamespace(source_name="film.mp4", intrinsics=np.diag([900.0, 1100.0, 1.0]))
    known, guessed = (_focal_sentence(capture, 1234.4, share * FOCAL_SIGMA) for share in (0.59, 0.61))
    for sentence in (known, guessed):
        assert sentence.startswith("Focal length of film.mp4: 1234 px (guess 1000 px, uncertain by ")
    assert known.endswith("determined by the face's perspective.") and "does not determine" not in known
    assert "does not determine it, so it stays near the guess" in guessed
    assert f"uncertain by {59 * FOCAL_SIGMA:.0f} %" in known


class StopAt(Progress):
    """Stops when a stage is reported and notes every later report."""

    def __init__(self, stage: str) -> None:
        self.stage, self.reached, self.late = stage, False, 0

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.late += self.reached
        self.reached = self.reached or stage == self.stage

    def cancelled(self) -> bool:
        return self.reached


@pytest.mark.parametrize("stage", ["person", "frames", "outline", "irises"])
def test_tracking_stops_in_every_stage_as_soon_as_it_is_asked_to(
    stage: str, clip: SyntheticClip, model: HeadModel, tmp_path: Path
) -> None:
    progress = StopAt(stage)
    with pytest.raises(Cancelled):
        track_captures([clip.capture], model, progress=progress)
    assert progress.late == 0


def test_a_frame_is_unsure_above_six_pixels_of_512_or_without_an_error() -> None:
    residual = np.array([0.0, 3.0, 3.01, np.nan, 3.01])
    flags = np.array([0, FrameFlag.CUT_OFF, 0, FrameFlag.NO_FACE, FrameFlag.CUT_OFF], np.int32)
    unsure = FrameFlag.TRACK_UNSURE
    expected = [0, FrameFlag.CUT_OFF, unsure, FrameFlag.NO_FACE | unsure, FrameFlag.CUT_OFF | unsure]
    found = flag_frames(flags, residual, 256)
    assert found.tolist() == expected and found.dtype == np.int32


def moved(jumps: dict[int, float], frames: int = 20) -> SimpleNamespace:
    """A face 100 pixels wide that moves by so many pixels, along both axes, before each of these frames."""
    shape = np.random.default_rng(0).uniform(0, 100, (478, 3)).astype(np.float32)
    shape[0, :2], shape[1, :2] = 0, 100
    steps = np.array([jumps.get(index, 0.1) for index in range(frames)])
    return SimpleNamespace(landmarks=shape + np.cumsum(steps)[:, None, None].astype(np.float32), frame_count=frames)


@pytest.mark.parametrize(
    ("jumps", "cuts"),
    [
        ({10: 8.0}, [10]),
        ({10: 2.0}, []),
        ({10: 8.0, 12: 2.9}, []),
        ({10: 8.0, 13: 2.9}, []),
        ({10: 8.0, 14: 2.9}, [10, 14]),
        ({10: 2.2}, [10]),
        ({3: 8.0}, []),
        ({4: 8.0}, [4]),
        ({16: 8.0}, [16]),
        ({17: 8.0}, []),
        ({6: 8.0, 12: 9.0}, [6, 12]),
    ],
)
def test_a_cut_is_a_jump_that_nothing_near_it_resembles(
    jumps: dict[int, float], cuts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = moved(jumps)
    monkeypatch.setattr(shot_cuts, "_image_changes", lambda capture, first: True)
    assert shot_cuts.find_cuts(capture).tolist() == cuts
    monkeypatch.setattr(shot_cuts, "_image_changes", lambda capture, first: first != 6)
    assert shot_cuts.find_cuts(capture).tolist() == [first for first in cuts if first != 6]


def test_a_clip_that_is_too_short_to_compare_has_no_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shot_cuts, "_image_changes", lambda capture, first: True)
    assert shot_cuts.find_cuts(moved({4: 8.0}, frames=8)).tolist() == [4]
    found = shot_cuts.find_cuts(moved({4: 8.0}, frames=7))
    assert found.tolist() == [] and found.dtype == np.int64


@pytest.mark.parametrize(("change", "cut"), [(4.0, False), (5.0, True)])
def test_an_image_that_changes_three_times_as_much_as_noise_may_is_another_shot(
    change: float, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [np.full((64, 64, 3), 100 + (change if index >= 10 else 0), np.uint8) for index in range(20)]
    monkeypatch.setattr(shot_cuts, "read_frame", lambda capture, index, size: frames[index])
    assert shot_cuts._image_changes(SimpleNamespace(frame_count=20), 10) == cut
