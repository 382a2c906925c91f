"""An avatar of graph U-Nets is distilled into blendshapes that look like it, in a file that Blender plays."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from head_models import ball_head

from backend.avatar.avatar import Avatar, build_networks, file_parts, load_avatar, save_avatar
from backend.avatar.settings import AvatarSettings
from backend.errors import Cancelled, EffigyError
from backend.formats.track import Track
from backend.progress import SILENT, Progress
from backend.service import commands
from backend.service.requests import TrainRequest
from backend.service.sentences import describe
from backend.training import baking
from blender_addon.player.baked_file import read_baked


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    """A ball whose networks depend on the expression, with Gaussians that are seen."""
    model = ball_head()
    torch.manual_seed(3)
    settings = AvatarSettings(filters=4, latent_size=3, blendshapes=0)
    identity = np.zeros(3, np.float32)
    networks = build_networks(settings, model, identity)
    with torch.no_grad():
        for parameter in filter(lambda parameter: parameter.requires_grad, networks.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
        networks.appearance.bias_output[:, 0] += 3.0
        networks.views[:] = torch.tensor(((-0.3, 0.3), (-0.2, 0.2)))
        networks.performed[0], networks.performed[1] = -0.3, 0.5
    return Avatar(networks.eval(), model, identity, settings)


def test_what_is_baked_looks_like_the_networks_and_is_played(avatar, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(baking, "BASIS_POSES", 96)
    monkeypatch.setattr(baking, "WEIGHT_POSES", 96)
    monkeypatch.setattr(baking, "STEPS", 200)
    baked = baking.bake(avatar)
    assert baked.decibels > 35
    save_avatar(baked.avatar, tmp_path / "baked.effigy")
    found = read_baked(tmp_path / "baked.effigy")
    assert found is not None and found.gaussians == avatar.gaussian_count
    pose = baking.sampler(avatar, 5).draw(16)[0]
    loaded = load_avatar(tmp_path / "baked.effigy", avatar.head_model)
    mean = replace_weights(loaded)
    with torch.no_grad():
        truth, near, still = (each.networks(pose)[0].means for each in (avatar, loaded, mean))
    # The shapes follow the pose, not only its mean.
    assert (near - truth).square().mean() < 0.2 * (still - truth).square().mean()
    # A graph network that adds nothing is not stored.
    assert all("latents" not in part.name for part in file_parts(tmp_path / "baked.effigy"))
    shapes = loaded.networks.blendshapes
    assert torch.allclose(shapes.features(), baked.avatar.networks.blendshapes.features(), rtol=1e-3, atol=1e-5)
    # Weights beyond those of all poses that were tried are not extrapolated.
    assert shapes.weight_limits.isfinite().all()
    assert (shapes.weights(100 * pose.conditions) <= shapes.weight_limits[1]).all()


def replace_weights(avatar: Avatar) -> Avatar:
    """The avatar whose shapes all weigh nothing."""
    copy = Avatar(
        build_networks(avatar.settings, avatar.head_model, avatar.identity),
        avatar.head_model,
        avatar.identity,
        avatar.settings,
    )
    copy.networks.load_state_dict(avatar.networks.state_dict())
    with torch.no_grad():
        copy.networks.blendshapes.mix[2].weight.zero_()
        copy.networks.blendshapes.mix[2].bias.zero_()
    return copy


def quick(monkeypatch) -> None:
    for name, value in (("BASIS_POSES", 64), ("WEIGHT_POSES", 16), ("STEPS", 20), ("HELD_OUT", 1)):
        monkeypatch.setattr(baking, name, value)


def test_training_graph_u_nets_bakes_them_beside_the_avatar(avatar, tmp_path: Path, monkeypatch):
    quick(monkeypatch)
    monkeypatch.setattr("backend.training.trainer.train", lambda *_, **options: avatar)
    monkeypatch.setattr("backend.formats.track.load_track", lambda path: taken.append(path) or track_of(avatar))
    request, taken = TrainRequest((tmp_path,), tmp_path / "anna.effigy", generator="unet"), []
    trained = commands.train(request, SILENT)
    assert trained.playable == tmp_path / "anna_playable.effigy"
    assert read_baked(trained.playable) is not None and str(trained.playable) in describe(trained)
    before = trained.playable.read_bytes()
    assert taken == [tmp_path / "track.npz"]
    assert commands.train(request, SILENT).playable == tmp_path / "anna_playable-2.effigy"
    assert trained.playable.read_bytes() == before

    class Stopped(Progress):
        said = ()

        def message(self, text):
            self.said += (text,)

        def raise_if_cancelled(self):
            raise Cancelled("Stopped.")

    stopped = Stopped()
    assert commands.train(request, stopped).playable is None
    assert stopped.said == (
        "The avatar was not baked for playing without the backend: it was stopped. Run `bake` for that.",
    )


def track_of(avatar: Avatar, frames: int = 6) -> Track:
    """A track whose last frame is held out and whose third one is flagged."""
    model, cameras = avatar.head_model, np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    cameras[:, 2, 3] = 0.6 + 0.01 * np.arange(frames)
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=avatar.identity,
        expression=np.full((frames, len(model.expression_names)), 0.1, np.float32),
        rotations=np.zeros((frames, 5, 3), np.float32),
        head_to_camera=cameras,
        size=64,
        intrinsics=np.eye(3, dtype=np.float32),
        fps=Fraction(25),
        residual=np.zeros(frames, np.float32),
        flags=np.array([0, 0, 1, *[0] * (frames - 3)], np.int32),
        training_count=frames - 1,
    )


def test_many_of_the_poses_are_training_frames_of_the_footage(avatar):
    track = track_of(avatar)
    _, cameras = baking.sampler(avatar, 1, [track]).draw(400)
    distances = cameras[:, 2, 3].numpy()
    found = [(cameras[:, 2, 3] == distance).sum().item() for distance in track.head_to_camera[:, 2, 3].tolist()]
    assert 110 < sum(found) < 210 and found[2] == found[5] == 0 and min(found[:2] + found[3:5]) > 15, distances
    with pytest.raises(EffigyError, match="was made with the head model"):
        baking.bake(avatar, [replace(track, head_fingerprint="another")])


def test_blendshapes_are_not_baked_again(avatar, monkeypatch):
    settings = AvatarSettings(blendshapes=2)
    networks = build_networks(settings, avatar.head_model, avatar.identity)
    with pytest.raises(EffigyError, match="plays it as it is"):
        baking.bake(Avatar(networks, avatar.head_model, avatar.identity, settings))
