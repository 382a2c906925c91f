"""Graph-guided optimisation: every parameter learns, a disturbed track is brought back, held-out frames are let be."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_capture import make_small_capture

from backend.avatar.avatar import build_networks
from backend.avatar.pose_refinement import RigidMotion, offsets_from_units
from backend.avatar.render import draw
from backend.avatar.settings import AvatarSettings
from backend.formats.track import load_track, save_track
from backend.splatting.types import Splats
from backend.training import presets
from backend.training.frames import TrackPoses, TrainingFrames, read_truth
from backend.training.losses import anchor_limits
from backend.training.optimisation import Optimisation, ParameterGroup
from backend.training.pose_refinement import REFINED_TRACK, PoseRefiner
from backend.training.presets import Preset
from backend.training.trainer import train

TURN, SHIFT, EXPRESSION = np.radians(1.5), 0.004, 0.15


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refined")
    before = os.environ.get("EFFIGY_USER")
    os.environ["EFFIGY_USER"] = str(folder / "user")
    yield make_small_capture(folder, texture=120.0)
    os.environ.pop("EFFIGY_USER") if before is None else os.environ.__setitem__("EFFIGY_USER", before)


pytestmark = pytest.mark.usefixtures("one_thread")


def disturbed(track):
    """1.5 degrees, 4 mm and noise on the expression, as a tracker errs: neighbouring frames alike. Training frames
    alone.
    """
    random = np.random.default_rng(3)

    def errors(size: int) -> np.ndarray:
        noise = random.normal(size=(track.frame_count, size))
        return (noise + np.roll(noise, 1, 0) + np.roll(noise, -1, 0)) / np.sqrt(3)

    turn, shift, expression = errors(3), errors(3), EXPRESSION * errors(track.expression.shape[1])
    error = np.tile(np.eye(4), (track.frame_count, 1, 1))
    error[:, :3, :3] = Rotation.from_rotvec(TURN * turn / np.linalg.norm(turn, axis=1, keepdims=True)).as_matrix()
    error[:, :3, 3] = SHIFT * shift / np.linalg.norm(shift, axis=1, keepdims=True)
    error[track.training_count :], expression[track.training_count :] = np.eye(4), 0
    return dataclasses.replace(
        track,
        head_to_camera=(track.head_to_camera @ error).astype(np.float32),
        expression=(track.expression + expression).astype(np.float32),
    )


def errors_of(track, truth, model) -> dict[str, float]:
    """Means over the training frames: degrees, millimetres across the view, coefficients, and pixels of the
    vertices.
    """
    frames = np.arange(truth.training_count)
    between = np.linalg.inv(truth.head_to_camera[frames]) @ track.head_to_camera[frames]
    images = []
    for each in (track, truth):
        camera = each.head_to_camera[frames]
        points = (
            TrackPoses(each, model).pose(frames).posed.numpy() @ camera[:, :3, :3].transpose(0, 2, 1)
            + camera[:, None, :3, 3]
        )
        images.append(each.intrinsics[0, 0] * points[..., :2] / points[..., 2:])
    return {
        "degrees": float(np.degrees(Rotation.from_matrix(between[:, :3, :3]).magnitude()).mean()),
        "millimetres": float(1000 * np.linalg.norm(between[:, :2, 3], axis=1).mean()),
        "expression": float(np.abs(track.expression - truth.expression)[frames].mean()),
        "pixels": float(np.linalg.norm(images[0] - images[1], axis=-1).mean()),
    }


def held_out_psnr(avatar, capture, track) -> float:
    squared = []
    for index in range(capture.training_count, capture.frame_count):
        truth, _ = read_truth(capture, index, 64)
        squared.append(np.square(draw(avatar, track, [index], 64)[0].over((1.0, 1.0, 1.0)) - truth / 255.0).mean())
    return float(-10 * np.log10(np.mean(squared)))


def test_every_parameter_has_a_gradient_after_one_step(small):
    capture, track, model = small
    frames = TrainingFrames(capture, track, model, 64)
    torch.manual_seed(0)
    networks = build_networks(AvatarSettings(size=64), model, track.identity)
    pose_refiner = PoseRefiner(networks, frames)
    parameters = dict(pose_refiner.refinement.named_parameters())
    optimisation = Optimisation(
        networks,
        [ParameterGroup(parameters.values(), 1e-2)],
        frames,
        anchor_limits(model, networks.base_scale),
        stage="Training",
        steps=10,
        batch=4,
        size=64,
        final_rate=1.0,
        pose_refiner=pose_refiner,
    )
    optimisation._step()
    # At the start the offsets are zero: what leads to them has a gradient at once, what is behind it after one step.
    assert parameters["project.weight"].grad.abs().sum() > 0 and parameters["project.bias"].grad.abs().sum() > 0
    optimisation._step()
    silent = [name for name, parameter in parameters.items() if not parameter.grad.abs().sum() > 0]
    assert not silent
    # Every offset has one of its own, the head's motion included, which the rasteriser knows nothing of.
    assert (parameters["project.bias"].grad.abs() > 0).all()


def test_training_starts_from_the_tracked_poses(small):
    capture, track, model = small
    frames = TrainingFrames(capture, track, model, 64)
    pose_refiner = PoseRefiner(build_networks(AvatarSettings(size=64), model, track.identity), frames)
    rows = torch.tensor([2, 9])
    batch = frames.batch(rows, 64)
    pose, motion, _ = pose_refiner.pose(batch, rows, rows)
    for name, value in vars(pose).items():
        torch.testing.assert_close(value, getattr(batch.pose, name), atol=1e-6, rtol=0, msg=name)
    torch.testing.assert_close(motion.matrices, torch.eye(4).expand(2, 4, 4), atol=1e-6, rtol=0)


def test_moving_the_splats_shows_what_moving_the_camera_would(small):
    """A turn and a shift about the middle, in closed form; the gradient against differences."""
    generator = torch.Generator().manual_seed(5)
    splats = Splats(
        torch.randn(1, 7, 3, generator=generator),
        torch.randn(1, 7, 4, generator=generator),
        torch.ones(1, 7, 3),
        torch.ones(1, 7),
        torch.ones(1, 7, 3),
    )
    splats = Splats(*(part.double() for part in vars(splats).values()))
    middle = torch.tensor([0.0, 0.03, 0.09], dtype=torch.float64)

    def moved(units: torch.Tensor) -> torch.Tensor:
        motion: RigidMotion = offsets_from_units(units).rigid_motion(middle)
        after = motion.move(splats)
        return torch.cat((after.means.flatten(), after.quaternions.flatten()))

    units = torch.zeros(1, 19, dtype=torch.float64)
    units[0, 14] = 40.0
    turn = Rotation.from_rotvec([0, np.radians(40), 0]).as_matrix()
    expected = (splats.means[0].numpy() - middle.numpy()) @ turn.T + middle.numpy()
    np.testing.assert_allclose(moved(units)[:21].reshape(7, 3), expected, atol=1e-6)
    assert torch.autograd.gradcheck(
        moved, torch.randn(1, 19, dtype=torch.float64, generator=generator).requires_grad_()
    )


def test_disturbed_track_is_brought_back_and_held_out_frames_gain(small, tmp_path, monkeypatch):
    capture, truth, model = small
    given = disturbed(truth)
    save_track(given, capture.folder / "track.npz")
    stored = (capture.folder / "track.npz").read_bytes()
    psnr = {}
    for refinement in (False, True):
        monkeypatch.setitem(
            presets.PRESETS, "draft", Preset(size=64, warmup_steps=300, steps=220, refinement=refinement)
        )
        avatar = train(capture.folder, tmp_path / f"{refinement}.effigy")
        psnr[refinement] = held_out_psnr(avatar, capture, truth)
        assert (capture.folder / REFINED_TRACK).exists() == refinement
    refined = load_track(capture.folder / REFINED_TRACK, model)
    before, after = errors_of(given, truth, model), errors_of(refined, truth, model)
    figures = f"{before} -> {after}, held out {psnr}"
    for name in ("degrees", "millimetres", "pixels"):
        assert after[name] < 0.5 * before[name], f"{name}: {figures}"
    assert after["expression"] < 0.75 * before["expression"], figures
    assert psnr[True] > psnr[False] + 0.5, figures
    # Held-out frames are as they were tracked, in the refined track as well, and the track itself is untouched.
    assert (capture.folder / "track.npz").read_bytes() == stored
    held = slice(capture.training_count, None)
    for name in ("expression", "rotations", "head_to_camera"):
        np.testing.assert_array_equal(getattr(refined, name)[held], getattr(given, name)[held])
