"""Tracking again through an avatar, on a capture whose true poses are known and whose avatar is perfect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from small_capture import make_small_capture, true_avatar

from backend.errors import Cancelled, EffigyError
from backend.progress import SILENT, Progress
from backend.training.track_by_avatar import WINDOW, _allowances, _Fit, track_by_avatar

TEXTURE = 120.0

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    capture, track, model = make_small_capture(tmp_path_factory.mktemp("small"), frames=12, texture=TEXTURE)
    avatar = true_avatar(model, track, TEXTURE)
    yield capture, track, avatar
    patch.undo()


def disturbed(track):
    """A track whose error changes slowly: 1.5 degrees, 3 mm, and 0.1 of each coefficient."""
    phase = np.linspace(0, 2, track.frame_count)
    cameras = track.head_to_camera.copy()
    for index, cycle in enumerate(phase):
        turn = np.radians(1.5) * np.array([np.sin(cycle), np.cos(cycle), 0])
        cameras[index, :3, :3] = cameras[index, :3, :3] @ Rotation.from_rotvec(turn).as_matrix()
        cameras[index, :2, 3] += 0.003 * np.array([np.cos(cycle), np.sin(cycle)])
    expression = track.expression + np.float32(0.1) * np.cos(phase)[:, None].astype(np.float32)
    return replace(track, head_to_camera=cameras, expression=expression)


def errors_of(track, truth) -> dict[str, float]:
    between = np.linalg.inv(truth.head_to_camera.astype(np.float64)) @ track.head_to_camera
    return {
        "degrees": float(np.degrees(Rotation.from_matrix(between[:, :3, :3]).magnitude()).mean()),
        "millimetres": float(1000 * np.linalg.norm(between[:, :2, 3], axis=1).mean()),
        "expression": float(np.abs(track.expression - truth.expression).mean()),
    }


def test_an_avatar_corrects_the_track_of_its_person(small):
    capture, truth, avatar = small
    given = disturbed(truth)
    fitted = track_by_avatar(avatar, capture, given)
    before, after = errors_of(given, truth), errors_of(fitted.track, truth)
    for name, share in {"degrees": 0.4, "millimetres": 0.4, "expression": 0.7}.items():
        assert after[name] < share * before[name], f"{before} -> {after}"
    assert fitted.frames == 12 and fitted.difference < 0.4 * fitted.difference_before
    # The standard deviations were those of the poses as tracked.
    assert fitted.track.sigma is None


def test_a_right_track_stays_and_a_flagged_frame_is_not_touched(small):
    capture, truth, avatar = small
    flags = truth.flags.copy()
    flags[5] = 1
    given = disturbed(replace(truth, flags=flags))
    wrong = given.head_to_camera[5]
    given = replace(truth, flags=flags, head_to_camera=truth.head_to_camera.copy())
    given.head_to_camera[5] = wrong
    fitted = track_by_avatar(avatar, capture, given)
    assert fitted.frames == 11
    for name in ("expression", "rotations", "head_to_camera"):
        np.testing.assert_array_equal(getattr(fitted.track, name)[5], getattr(given, name)[5])
    good = np.flatnonzero(flags == 0)
    # At 64 pixels a coefficient moves the picture little; these take values of up to 0.5.
    assert np.abs(fitted.track.expression - truth.expression)[good].mean() < 0.03
    moved = np.abs(fitted.track.head_to_camera - truth.head_to_camera)[good]
    # 1 cm of depth is a third of a pixel here.
    assert moved[:, :3, :3].max() < 0.01 and moved[:, :2, 3].max() < 0.003 and moved[:, 2, 3].max() < 0.01


def test_what_the_tracker_knows_less_well_may_move_further(small):
    _, truth, _ = small
    size = truth.expression.shape[1]
    sigma = np.ones((truth.frame_count, size + 13), np.float32)
    sigma[3, 1], sigma[4, size + 5], sigma[6, size + 10 :], sigma[7] = 2, 3, 100, np.nan
    allowances = _allowances(replace(truth, sigma=sigma))
    assert allowances[3, 1] == 2 and allowances[3, 0] == 1
    # The right eye's first angle is the component after the left eye's three.
    assert allowances[4, size + 6] == 3 and allowances[4, size + 3] == 1
    # Bounded, so that a frame without information does not become free of the prior.
    assert (allowances[6, size + 12 :] == 4).all() and (allowances[7] == 1).all()
    assert allowances.shape == (truth.frame_count, size + 15) and (_allowances(truth) == 1).all()


def test_frames_with_a_gap_between_them_are_not_smoothed_together(small):
    """The error changes its sign over a gap of some seconds: with smoothness across, both sides were pulled."""
    capture, truth, avatar = small
    times = np.arange(12) / 25.0
    times[6:] += 5.0
    given = replace(truth, frame_times=times, expression=truth.expression.copy())
    given.expression[:6] += 0.2
    given.expression[6:] -= 0.2
    apart = errors_of(track_by_avatar(avatar, capture, given).track, truth)["expression"]
    together = errors_of(track_by_avatar(avatar, capture, replace(given, frame_times=None)).track, truth)["expression"]
    assert apart < together


@pytest.mark.parametrize(("wait", "begin"), [(0.0, (2, 1.0)), (5.0, (0, 0.0))])
def test_a_window_begins_anew_after_a_gap_and_else_from_the_frames_before(small, monkeypatch, wait, begin):
    capture, truth, avatar = small
    times = np.arange(12) / 25.0 + wait * (np.arange(12) >= WINDOW)
    fit = _Fit(avatar, capture, replace(truth, frame_times=times), capture.size, SILENT)
    fit.units[:WINDOW] = 1
    begun = []

    def optimised(indices, fixed, units, *rest):
        begun.append((len(fixed), float(units.abs().max())))
        return units

    monkeypatch.setattr(fit, "_optimised", optimised)
    fit.window(np.arange(12), WINDOW)
    assert begun[0] == begin


def test_the_copy_has_the_identity_of_the_avatar(small):
    capture, truth, avatar = small
    other = replace(truth, identity=truth.identity + np.float32(0.3))
    fitted = track_by_avatar(avatar, capture, other).track
    np.testing.assert_array_equal(fitted.identity, avatar.identity)


def test_another_head_model_is_refused_and_stopping_is_prompt(small):
    capture, truth, avatar = small
    with pytest.raises(EffigyError, match="head model"):
        track_by_avatar(avatar, capture, replace(truth, head_fingerprint="0" * 16))

    class Stopping(Progress):
        def raise_if_cancelled(self) -> None:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        track_by_avatar(avatar, capture, truth, progress=Stopping())
