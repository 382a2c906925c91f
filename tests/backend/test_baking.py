"""An avatar of graph U-Nets is distilled into blendshapes that look like it, in a file that Blender plays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from head_models import ball_head

from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
from backend.avatar.settings import AvatarSettings
from backend.errors import EffigyError
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
    monkeypatch.setattr(baking, "BASIS_POSES", 48)
    monkeypatch.setattr(baking, "WEIGHT_POSES", 96)
    monkeypatch.setattr(baking, "STEPS", 200)
    baked = baking.bake(avatar)
    assert baked.decibels > 35
    save_avatar(baked.avatar, tmp_path / "baked.effigy")
    found = read_baked(tmp_path / "baked.effigy")
    assert found is not None and found.gaussians == avatar.gaussian_count
    pose = baking._Poses(avatar, np.random.default_rng(5)).draw(2)[0]
    loaded = load_avatar(tmp_path / "baked.effigy", avatar.head_model)
    mean = replace_weights(loaded)
    with torch.no_grad():
        truth, near, still = (each.networks(pose)[0].means for each in (avatar, loaded, mean))
    # The shapes follow the pose, not only its mean.
    assert (near - truth).square().mean() < 0.2 * (still - truth).square().mean()


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


def test_blendshapes_are_not_baked_again(avatar, monkeypatch):
    settings = AvatarSettings(blendshapes=2)
    networks = build_networks(settings, avatar.head_model, avatar.identity)
    with pytest.raises(EffigyError, match="plays it as it is"):
        baking.bake(Avatar(networks, avatar.head_model, avatar.identity, settings))
