"""Patches of training images at full resolution: what they show, and which batches show them."""

from __future__ import annotations

import pytest
import torch
from small_capture import SIZE, make_small_capture

from backend.splatting.rasterize import rasterize
from backend.splatting.types import Splats
from backend.training.frames import TrainingFrames
from bench.patches import PatchedFrames, cut, patch_cameras

SIDE = SIZE // 2


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> TrainingFrames:
    folder = tmp_path_factory.mktemp("patches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFIGY_USER", str(folder))
        capture, track, model = make_small_capture(folder, frames=10)
        return TrainingFrames(capture, track, model, SIZE)


def test_a_patch_is_drawn_as_in_the_whole_image(frames: TrainingFrames) -> None:
    whole = frames.batch(torch.tensor([1, 6]), SIZE)
    corners = torch.tensor([[3, 17], [SIZE - SIDE, 0]])
    vertices = whole.pose.posed
    count = vertices.shape[1]
    generator = torch.Generator().manual_seed(3)
    splats = Splats(
        vertices,
        torch.nn.functional.normalize(torch.randn((2, count, 4), generator=generator), dim=-1),
        0.001 + 0.01 * torch.rand((2, count, 3), generator=generator),
        torch.rand((2, count), generator=generator),
        torch.rand((2, count, 3), generator=generator),
    )
    image = rasterize(splats, whole.cameras)
    drawn = rasterize(splats, patch_cameras(whole.cameras, corners, SIDE))
    assert drawn.alpha.shape == (2, SIDE, SIDE) and drawn.alpha.std() > 0.1
    for name in ("color", "alpha", "depth"):
        difference = (cut(getattr(image, name), corners, SIDE) - getattr(drawn, name)).abs().max()
        # A Gaussian far outside of the patch is projected with another clamped slope.
        assert difference < 1e-4, name


@pytest.mark.parametrize(("every", "patches"), [(1, [True] * 6), (2, [False, True] * 3), (3, [False, False, True] * 2)])
def test_whole_images_and_patches_come_by_turns(frames: TrainingFrames, every: int, patches: list[bool]) -> None:
    rows = torch.tensor([1, 6])
    patched, whole, full = PatchedFrames(frames, every, 5, 4), frames.batch(rows, SIDE), frames.batch(rows, SIZE)
    assert len(patched) == len(frames) and torch.equal(patched.batch(rows, SIZE).color, full.color)
    for is_patch in patches:
        found = patched.batch(rows, SIDE)
        if not is_patch:
            assert torch.equal(found.color, whole.color)
            assert torch.equal(found.cameras.intrinsics, whole.cameras.intrinsics)
            continue
        corners = (full.cameras.intrinsics - found.cameras.intrinsics)[:, :2, 2].round().long().flip(-1)
        assert (corners % 4 == 0).all() and (corners >= 0).all() and (corners <= SIZE - SIDE).all()
        assert found.cameras.width == found.cameras.height == SIDE
        for name in ("color", "matte"):
            assert torch.equal(getattr(found, name), cut(getattr(full, name), corners, SIDE))
