"""Tracking again through an avatar, on a capture whose true poses are known and whose avatar is perfect."""

from __future__ import annotations

import copy
import itertools
import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_capture import SIZE, make_small_capture, true_avatar

from backend.avatar.filmed import filmed_faces
from backend.avatar.pose_refinement import offsets_from_units
from backend.errors import Cancelled, EffigyError
from backend.progress import SILENT, Progress
from backend.training.frames import read_truth
from backend.training.track_by_avatar import (
    WINDOW,
    _allowances,
    _are_neighbours,
    _filtered,
    _Fit,
    _frozen,
    track_by_avatar,
)

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


def test_between_the_fitted_frames_offsets_are_interpolated(small):
    capture, truth, avatar = small
    given = disturbed(truth)
    fitted = track_by_avatar(avatar, capture, given, most=5)
    before, after = errors_of(given, truth), errors_of(fitted.track, truth)
    for name, share in {"degrees": 0.5, "millimetres": 0.5, "expression": 0.8}.items():
        assert after[name] < share * before[name], f"{before} -> {after}"
    assert fitted.frames == 5


def test_a_capture_in_another_light_is_fitted_as_well(small, tmp_path):
    capture, truth, avatar = small
    dark = replace(capture, folder=tmp_path / "dark.capture")
    shutil.copytree(capture.folder, dark.folder)
    for index in range(capture.frame_count):
        cv2.imwrite(str(dark.frame_path(index)), cv2.imread(str(dark.frame_path(index))) // 2)
    given = disturbed(truth)
    fitted = track_by_avatar(avatar, dark, given, most=5, light=0.5 * torch.eye(3, 4))
    before, after = errors_of(given, truth), errors_of(fitted.track, truth)
    assert after["degrees"] < 0.5 * before["degrees"] and after["millimetres"] < 0.5 * before["millimetres"]
    assert fitted.difference < 0.02


def test_the_fitted_faces_are_those_that_the_avatar_draws(small):
    """Of faces beyond the filmed ones the avatar draws the nearest, and so must the fit."""
    capture, truth, avatar = small
    avatar = replace(avatar, networks=copy.deepcopy(avatar.networks))
    faces = torch.as_tensor(truth.expression[:3]) * 0.2
    joints = torch.zeros(3, 9)
    avatar.networks.filmed = filmed_faces(torch.cat((faces, joints), 1))
    fit = _Fit(avatar, capture, truth, capture.size, SILENT)
    rows = np.arange(4)
    drawn = avatar.pose(
        *(torch.as_tensor(part[rows]) for part in (truth.expression, truth.rotations, truth.head_to_camera))
    )
    units = torch.zeros(4, truth.expression.shape[1] + 15, requires_grad=True)
    fitted, _ = fit.poses.refined_pose(rows, offsets_from_units(units))
    torch.testing.assert_close(fitted.conditions, drawn.conditions)
    assert not torch.allclose(drawn.conditions[:, :4], torch.as_tensor(truth.expression[rows]))
    torch.testing.assert_close(fitted.beyond, drawn.beyond)
    fitted.conditions[:, :4].sum().backward()
    assert units.grad[:, :4].abs().sum() > 0


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


# --- the energy, on differences that are known functions of the offsets


@pytest.fixture
def fit(small) -> _Fit:
    capture, truth, avatar = small
    times = np.arange(12) / 25.0
    times[4:] += 0.3
    return _Fit(avatar, capture, replace(truth, frame_times=times), capture.size, SILENT)


def test_offsets_at_the_minimum_of_the_energy_stay_there(fit: _Fit) -> None:
    """Weights of 3e-4 for the offsets in their allowances and 1e-3 for second differences, none across a gap."""
    generator = torch.Generator().manual_seed(0)
    width, indices, strength = fit.units.shape[1], np.arange(2, 6), 2e-3
    fixed, targets = (torch.randn(count, width, generator=generator).double() for count in (2, 4))
    fit.allowances = 1 + 3 * torch.rand(12, width, generator=generator).double()
    # Of frames 0 to 5, in which 3 and 4 lie a gap apart, (0, 1, 2) and (1, 2, 3) are smooth.
    bends = torch.tensor([[1.0, -2, 1, 0, 0, 0], [0, 1, -2, 1, 0, 0]]).double()
    least = torch.empty(4, width).double()
    for column in range(width):
        prior = 3e-4 * torch.diag(fit.allowances[2:6, column] ** -2)
        own, held = bends[:, 2:], bends[:, :2] @ fixed[:, column]
        matrix = strength * torch.eye(4).double() + prior + 1e-3 * own.T @ own
        right = strength * targets[:, column] - 1e-3 * own.T @ held
        least[:, column] = torch.linalg.solve(matrix, right)
    seen = []

    def difference(units: torch.Tensor) -> torch.Tensor:
        seen.append(units.detach().clone())
        return strength * (units - targets).square().mean(1)

    found = fit._optimised(indices, fixed, least, 2, 0.1, difference)
    assert max(float((units - least).abs().max()) for units in seen) < 1e-4 and len(seen) == 3
    assert float((found - least).abs().max()) < 1e-4


def test_steps_shorten_along_a_cosine_and_the_best_of_each_frame_is_kept(fit: _Fit) -> None:
    width, start = fit.units.shape[1], torch.zeros(2, fit.units.shape[1])
    seen = []

    def falling(units: torch.Tensor) -> torch.Tensor:
        seen.append(units.detach().clone())
        slope = 1e4 * units.mean(1)
        # Of the first frame the third energy is the least.
        return slope - slope.detach() - torch.tensor((50.0 if len(seen) == 3 else 0.0, 10.0 * len(seen)))

    found = fit._optimised(np.array((0, 1)), start[:0], start, 5, 0.2, falling)
    steps = [float(-(after - before).mean()) for before, after in itertools.pairwise(seen)]
    # Adam's step along a constant slope is as long as its rate.
    assert steps == pytest.approx([0.2 * 0.5 * (1 + np.cos(np.pi * step / 5)) for step in range(5)], rel=1e-3)
    assert torch.equal(found[0], seen[2][0]) and torch.equal(found[1], seen[5][1]) and found.shape == (2, width)


def test_a_window_is_fitted_coarsely_then_finely_and_compared_before_and_after(fit: _Fit, monkeypatch) -> None:
    begun, compared = [], fit._compared

    def optimised(indices, fixed, units, steps, rate, difference):
        sides = []
        monkeypatch.setattr(fit, "_compared", lambda *given: sides.append(given[1].shape[1:3]) or compared(*given))
        error = difference(units)
        begun.append((steps, rate, *sides[0], error))
        return units + 0.5

    monkeypatch.setattr(fit, "_optimised", optimised)
    assert fit.window(np.arange(10), 8) == 2
    assert [each[:4] for each in begun] == [(12, 0.3, 32, 32), (8, 0.15, 64, 64)]
    # The offsets are those of the frames before, plus half a unit twice.
    assert (fit.units[8:10] == 1).all() and not fit.units[:8].any()
    true, moved = fit.differences[8:10].T
    assert (true < 0.01).all() and (moved > 3 * true).all() and not fit.differences[:8].any()
    assert (begun[0][4] < 0.02).all() and (begun[1][4] > 1.5 * true).all()
    assert fit.window(np.arange(8), 8) == 0


def test_carried_gaussians_move_with_mesh_and_head_as_those_of_the_networks(fit: _Fit) -> None:
    indices = np.array((1, 7))
    images = torch.from_numpy(np.stack([read_truth(fit.capture, int(i), SIZE)[0] for i in indices])).float() / 255
    start = 0.2 * torch.randn(2, fit.units.shape[1], generator=torch.Generator().manual_seed(1))
    carried = fit._carried(indices, images, start)
    torch.testing.assert_close(carried(start), fit._difference(indices, images, start))
    moved = start + 0.5 * torch.randn(start.shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(carried(moved), fit._difference(indices, images, moved), rtol=0.05, atol=0.0)


def test_offsets_are_filtered_with_their_neighbours_in_time(fit: _Fit) -> None:
    units = torch.zeros(12, fit.units.shape[1])
    units[:, 0] = torch.tensor((0.0, 8, 0, 0, 4, 99, 0, 0, 0, 0, 0, 0))
    good = np.array((0, 1, 2, 3, 4, 6))
    filtered = _filtered(fit.track, good, units)[:, 0]
    # Nothing passes the gap between frames 3 and 4, and what has no neighbour on one side keeps its share.
    assert filtered.tolist() == [2, 4, 2, 0, 3, 1]
    assert torch.equal(_filtered(fit.track, good[:1], units), units[:1])
    assert _filtered(fit.track, good[:2], units)[:, 0].tolist() == [2, 6]


def test_a_pose_is_smooth_with_those_less_than_a_quarter_of_a_second_away(fit: _Fit) -> None:
    for wait, near in ((0.24, True), (0.26, False)):
        track = replace(fit.track, frame_times=np.arange(12) * wait)
        assert _are_neighbours(track, 3, 4) == near


def test_networks_learn_nothing_while_poses_are_fitted() -> None:
    networks = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    networks[1].requires_grad_(False)
    with pytest.raises(Cancelled), _frozen(SimpleNamespace(networks=networks)):
        assert not any(parameter.requires_grad for parameter in networks.parameters())
        raise Cancelled
    assert [parameter.requires_grad for parameter in networks.parameters()] == [True, True, False, False]


def test_allowances_are_by_direction_for_eyes_and_for_the_whole_head_pose(small) -> None:
    _, truth, _ = small
    size = truth.expression.shape[1]
    sigma = np.ones((truth.frame_count, size + 13), np.float32)
    flags = truth.flags.copy()
    flags[6:] = 1
    sigma[6:] = 50  # flagged frames do not say what is usual
    sigma[0, size + 2], sigma[1, size + 3], sigma[1, size + 6] = 2, 3, 2.5
    sigma[2, size + 8], sigma[3, size + 12] = 4, 2.5
    allowed = _allowances(replace(truth, sigma=sigma, flags=flags))
    assert allowed[0, size : size + 4].tolist() == [1, 1, 2, 1]
    assert allowed[1, size + 3 : size + 9].tolist() == [3, 1, 1, 1, 2.5, 1]
    assert allowed[2, size + 9 :].tolist() == [2, 2, 2, 1, 1, 1]
    assert allowed[3, size + 9 :].tolist() == [1, 1, 1, 1.5, 1.5, 1.5]
    assert (allowed[6:, : size + 5] == 4).all()
