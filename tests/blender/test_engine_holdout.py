"""An avatar that is a holdout is a hole in the image: it, the world and the avatars behind it are not seen there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy
import engine_truth
import numpy as np
import pytest
from engine_scenes import add_rig, premultiplied, read_by_backend, render_png, set_format, stage
from test_engine_composite import shot

__all__ = ["shot"]
LEVEL = 1 / 255
AWAY = np.array((np.sin(engine_truth.AZIMUTH), -np.cos(engine_truth.AZIMUTH), 0))
"""From the heads to the camera."""


def by_mesh(made: Any) -> None:
    made.mesh.is_holdout = True


def by_collection(made: Any) -> None:
    layer = bpy.context.view_layer.layer_collection
    layer.children[made.mesh.users_collection[0].name].holdout = True


def by_instance(made: Any) -> None:
    collection = made.mesh.users_collection[0]
    instance = bpy.data.objects.new("instance", None)
    instance.instance_type, instance.instance_collection, instance.is_holdout = "COLLECTION", collection, True
    bpy.context.scene.collection.objects.link(instance)
    bpy.context.view_layer.layer_collection.children[collection.name].exclude = True


@pytest.mark.parametrize("way", [by_mesh, by_collection, by_instance], ids=lambda way: way.__name__)
def test_a_holdout_cuts_its_avatar_out_of_the_image(way: Callable[[Any], None], engine_avatars, tmp_path, capfd):
    made = stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    scene.world = bpy.data.worlds.new("plain")
    alone = render_png(tmp_path / "alone.png")
    way(made)
    assert render_png(tmp_path / "clear.png")[..., 3].max() == 0
    scene.render.film_transparent = False
    cut = render_png(tmp_path / "cut.png")
    assert np.abs(cut[..., 3] - (1 - alone[..., 3])).max() < 2 * LEVEL
    assert (cut[0, 0, 3], cut[..., 3].min()) == (1, 0)
    background = cut[0, 0, :3]
    assert background.max() > 0.1
    kept = cut[..., 3] > 0.5
    assert np.abs(cut[kept][:, :3] - background).max() < 4 * LEVEL, "the world's own colour up to the edge of the hole"
    assert "is a holdout" not in "".join(capfd.readouterr())


def test_a_holdout_hides_the_avatar_behind_it_and_not_the_one_before_it(engine_avatars, tmp_path):
    ann = stage(engine_avatars / "ann.effigy")
    alone = render_png(tmp_path / "alone.png")
    head = alone[..., 3] > 0.995
    ben = add_rig(engine_avatars / "ben.effigy")
    ben.mesh.is_holdout = True
    ben.armature.location = -0.15 * AWAY
    behind = render_png(tmp_path / "behind.png")
    assert np.abs(premultiplied(behind) - premultiplied(alone))[head].mean() < LEVEL
    ben.armature.location = 0.15 * AWAY
    before = render_png(tmp_path / "before.png")
    assert before[..., 3][head].mean() < LEVEL
    # A hole has no depth.
    ben.armature.location = 0.06 * np.array((AWAY[1], -AWAY[0], 0)) + 0.15 * AWAY
    bpy.context.view_layer.use_pass_z = True
    set_format("EXR")
    bpy.context.scene.render.filepath = str(tmp_path / "half.exr")
    bpy.ops.render.render(write_still=True)
    channels = read_by_backend(tmp_path / "half.exr")
    depth = next(value for name, value in channels.items() if name.endswith("Z") or "Depth" in name)
    alpha = next(value for name, value in channels.items() if name.endswith(".A"))
    assert 500 < (alpha > 0.99).sum() < 0.9 * head.sum()
    assert np.abs(depth[alpha > 0.99] - engine_truth.DISTANCE).max() < 0.15 and (depth[alpha < 1e-3] > 1e9).all()
    assert ann.mesh.is_holdout is False


def test_the_composite_says_that_it_cuts_no_hole(shot, tmp_path, capfd):
    bpy.ops.effigy.set_up_composite()
    shot.mesh.is_holdout = True
    picture = render_png(tmp_path / "scene.png")
    assert picture[..., 3].min() > 0.99
    assert "cuts no hole into the scene" in "".join(capfd.readouterr())
