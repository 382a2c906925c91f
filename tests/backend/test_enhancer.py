"""The enhancer: residual on the colour alone, independent of where the head stands, trained beside the networks, in the
file.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_capture import make_small_capture

from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
from backend.avatar.enhancer import Enhancer, enhance, enhance_joint_image
from backend.avatar.render import draw
from backend.avatar.settings import AvatarSettings
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras, Raster, Splats
from backend.training import presets
from backend.training.presets import Preset
from backend.training.trainer import train

SIZE = 64


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    """An enhancer whose output differs from its input."""
    torch.manual_seed(1)
    made = Enhancer(8).eval()
    with torch.no_grad():
        # The same for the four pixels that the last layer unfolds to: no finer detail than resizing preserves.
        made.out.weight.copy_((0.01 * torch.randn(3, 8, 3, 3)).repeat_interleave(4, 0))
        made.density.fill_(200.0)
    return made


def blob(position=(0.0, 0.0, 0.0), count: int = 60, seed: int = 2) -> Splats:
    generator = torch.Generator().manual_seed(seed)
    means = 0.05 * torch.randn(1, count, 3, generator=generator) + torch.tensor(position)
    turns = torch.randn(1, count, 4, generator=generator)
    return Splats(
        means,
        turns,
        torch.full((1, count, 3), 0.02),
        torch.full((1, count), 0.8),
        torch.rand(1, count, 3, generator=generator),
    )


def cameras(distance: float = 0.6, size: int = SIZE, density: float = 200.0) -> Cameras:
    matrix = torch.eye(4)[None].clone()
    matrix[:, 2, 3] = distance
    focal = density * distance
    intrinsics = torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]])
    return Cameras(intrinsics, matrix, size, size)


def test_untrained_enhancer_changes_nothing():
    torch.manual_seed(0)
    raster = rasterize(blob(), cameras())
    torch.testing.assert_close(enhance(Enhancer(8), raster, blob(), cameras()).color, raster.color, atol=1e-6, rtol=0)


def test_alpha_depth_and_empty_pixels_are_left_alone(enhancer):
    raster = rasterize(blob(), cameras())
    after = enhance(enhancer, raster, blob(), cameras())
    assert (after.color - raster.color).abs().max() > 0.01
    assert torch.equal(after.alpha, raster.alpha) and torch.equal(after.depth, raster.depth)
    assert (after.color[raster.alpha == 0] == 0).all() and (raster.alpha == 0).any()
    assert (after.color <= raster.alpha[..., None]).all() and (after.color >= 0).all()


def test_camera_distance_and_the_head_s_size_in_the_world_change_nothing(enhancer):
    def added(distance: float) -> torch.Tensor:
        raster = rasterize(blob(), cameras(distance))
        return enhance(enhancer, raster, blob(), cameras(distance)).color - raster.color

    assert (added(20.0) - added(80.0)).abs().mean() < 0.1 * added(20.0).abs().mean()
    far = enhance(enhancer, rasterize(blob(), cameras(20.0)), blob(), cameras(20.0)).color
    twice = Splats(2 * blob().means, blob().quaternions, 2 * blob().scales, blob().opacities, blob().colors)
    enlarged = cameras(40.0, density=100.0)
    grown = enhance(enhancer, rasterize(twice, enlarged), twice, enlarged, size=2.0).color
    torch.testing.assert_close(grown, far, atol=2e-3, rtol=0)


def test_depth_modulates_every_block(enhancer):
    raster, depth = rasterize(blob(), cameras()), torch.full((1,), 0.6)
    gradients = torch.autograd.grad(
        enhancer(raster, depth).color.square().sum(),
        [p for name, p in enhancer.named_parameters() if "modulation.weight" in name],
    )
    assert len(gradients) == 5 and all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("size", [(64, 64), (50, 71), (33, 128)])
def test_any_image_size_is_accepted(enhancer, size):
    raster = Raster(torch.rand(1, *size, 3), torch.ones(1, *size), torch.full((1, *size), 0.6))
    assert enhancer(raster, torch.full((1,), 0.6)).color.shape == raster.color.shape


def test_larger_image_is_enhanced_like_the_small_one(enhancer):
    small = enhance(enhancer, rasterize(blob(), cameras()), blob(), cameras())
    added = small.color - rasterize(blob(), cameras()).color
    large_cameras = cameras(size=4 * SIZE, density=800.0)
    raster = rasterize(blob(), large_cameras)
    large = enhance(enhancer, raster, blob(), large_cameras).color - raster.color
    shrunk = torch.nn.functional.avg_pool2d(large.permute(0, 3, 1, 2), 4).permute(0, 2, 3, 1)
    assert (shrunk - added).abs().mean() < 0.35 * added.abs().mean()


def test_each_head_in_a_shared_image_is_enhanced_by_its_own_enhancer(enhancer):
    left, right = blob((-0.2, 0, 0)), blob((0.2, 0, 0), seed=4)
    view = cameras(size=128)
    both = Splats(*(torch.cat(pair, 1) for pair in zip(vars(left).values(), vars(right).values(), strict=True)))
    raster = rasterize(both, view)
    after = enhance_joint_image(raster, both, view, [60, 60], [enhancer, None], [1.0, 1.0]).color
    alone = enhance(enhancer, rasterize(left, view), left, view).color
    torch.testing.assert_close(after[:, :, :50], alone[:, :, :50], atol=1e-3, rtol=0)
    torch.testing.assert_close(after[:, :, 78:], raster.color[:, :, 78:], atol=1e-6, rtol=0)
    # Pixels behind the other head do not change.
    hidden = replace(left, means=left.means + torch.tensor([0.4, 0, 0.5]))
    wall = replace(right, scales=torch.full_like(right.scales, 0.2), opacities=torch.full_like(right.opacities, 0.99))
    both = Splats(*(torch.cat(pair, 1) for pair in zip(vars(hidden).values(), vars(wall).values(), strict=True)))
    raster = rasterize(both, view)
    after = enhance_joint_image(raster, both, view, [60, 60], [enhancer, None], [1.0, 1.0]).color
    torch.testing.assert_close(after, raster.color, atol=1e-3, rtol=0)


def test_enhancer_learns_detail_that_the_gaussians_lack():
    torch.manual_seed(0)
    learner, raster = Enhancer(8), rasterize(blob(), cameras())
    columns = torch.arange(SIZE)
    stripes = 0.15 * torch.sin(columns * 0.8)[:, None] * raster.alpha[..., None]
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], 2e-3)
    for _ in range(80):
        error = (learner(raster, torch.full((1,), 0.6)).color - raster.color - stripes).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert error < 0.5 * stripes.square().mean()


def test_trained_enhancer_improves_the_image_and_is_saved_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, track, _ = make_small_capture(tmp_path, texture=120.0)
    monkeypatch.setitem(
        presets.PRESETS, "draft", Preset(size=64, warmup_steps=40, steps=60, refinement=False, enhancer_width=8)
    )
    avatar = train(capture.folder, tmp_path / "ball.effigy")
    again = load_avatar(tmp_path / "ball.effigy")
    assert again.settings.enhancer_width == 8 and float(again.enhancer.density) == pytest.approx(233, rel=0.1)
    first, second = draw(avatar, track, [3], 64)[0], draw(again, track, [3], 64)[0]
    assert abs(first.color - second.color).max() < 0.02

    def error(enhanced: bool) -> float:
        from backend.training.frames import read_truth

        return sum(
            float(((frame.over((1, 1, 1)) - read_truth(capture, index, 64)[0] / 255) ** 2).mean())
            for index in range(0, 24, 4)
            for frame in draw(avatar, track, [index], 64, enhanced)
        )

    assert error(True) < error(False), (error(True), error(False))


def test_avatar_from_before_the_enhancer_opens_without_one(tmp_path, monkeypatch):
    values = AvatarSettings().to_dict()
    del values["enhancer_width"]
    assert AvatarSettings.from_dict(values).enhancer_width == 0


def test_doctor_lists_the_parts_of_an_avatar_file_by_size(tmp_path, monkeypatch, capsys):
    from backend.avatar.avatar import file_parts
    from backend.service.cli import main

    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, track, model = make_small_capture(tmp_path)
    settings = AvatarSettings(size=64, enhancer_width=8)
    path = tmp_path / "ball.effigy"
    save_avatar(Avatar(build_networks(settings, model, track.identity), model, track.identity, settings), path)
    parts = file_parts(path)
    assert sum(part.bytes for part in parts) == path.stat().st_size
    assert next(part for part in parts if part.name == "geometry.bias_output").types == ("F16",)
    assert main(["doctor", str(path)]) == 0
    output = capsys.readouterr().out
    assert "enhancer.fine" in output and "neural.color" in output and "F16" in output and "ball" in output
    assert main(["doctor", str(tmp_path / "none.effigy")]) == 2
