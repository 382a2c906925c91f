"""A picture in which no avatar is to be seen is empty, and the animation goes on; a missing one is an error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import bpy
import numpy as np
import pytest
from engine_scenes import SIZE, add_rig, read_png, render_png, set_format, stage
from test_engine_composite import AWAY, shot
from test_export_splats import read
from test_extension_screen import Layout

__all__ = ["shot"]
WORLD = (0.2, 0.4, 0.1)


def hidden(made: Any) -> None:
    made.mesh.hide_render = True


def hidden_collection(made: Any) -> None:
    made.mesh.users_collection[0].hide_render = True


def excluded_collection(made: Any) -> None:
    layer = bpy.context.view_layer.layer_collection
    layer.children[made.mesh.users_collection[0].name].exclude = True


def indirect_only(made: Any) -> None:
    layer = bpy.context.view_layer.layer_collection
    layer.children[made.mesh.users_collection[0].name].indirect_only = True


def scaled_to_nothing(made: Any) -> None:
    made.armature.scale = 0, 0, 0


def parent_scaled_to_nothing(made: Any) -> None:
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    made.armature.parent, parent.scale = parent, (0, 0, 0)


def root_bone_scaled_to_nothing(made: Any) -> None:
    made.pose_bone("root").scale = 0, 0, 0


def behind_the_camera(made: Any) -> None:
    made.armature.location = 3 * AWAY


def outside_the_frame(made: Any) -> None:
    made.armature.location = 0, 0, 5


def far_beyond_the_frame_under_an_orthographic_camera(made: Any) -> None:
    bpy.context.scene.camera.data.type = "ORTHO"
    made.armature.location = 0, 0, 50


def outside_the_border(made: Any) -> None:
    render = bpy.context.scene.render
    render.use_border, render.border_max_x, render.border_max_y = True, 0.05, 0.05


def in_another_scenes_collection_only(made: Any) -> None:
    """The scene shows the collection as an instance that is hidden."""
    scene, collection = bpy.context.scene, made.mesh.users_collection[0]
    instance = bpy.data.objects.new("instance", None)
    instance.instance_type, instance.instance_collection, instance.hide_render = "COLLECTION", collection, True
    scene.collection.objects.link(instance)
    scene.collection.children.unlink(collection)


WAYS: tuple[Callable[[Any], None], ...] = (
    hidden,
    hidden_collection,
    excluded_collection,
    indirect_only,
    scaled_to_nothing,
    parent_scaled_to_nothing,
    root_bone_scaled_to_nothing,
    behind_the_camera,
    outside_the_frame,
    far_beyond_the_frame_under_an_orthographic_camera,
    outside_the_border,
    in_another_scenes_collection_only,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_picture_is_empty(way, engine_avatars, tmp_path, capfd):
    made = stage(engine_avatars / "ann.effigy")
    way(made)
    clear = render_png(tmp_path / "clear.png")
    assert clear.shape == (SIZE, SIZE, 4) and clear[..., 3].max() == 0
    scene = bpy.context.scene
    scene.world = bpy.data.worlds.new("plain")
    scene.world.color, scene.render.film_transparent = WORLD, False
    scene.render.use_border = False
    if way is not outside_the_border:
        if scene.world.node_tree is not None:
            scene.world.node_tree.nodes.clear()
        solid = render_png(tmp_path / "solid.png")
        assert (solid == solid[0, 0]).all() and solid[0, 0, 3] == 1
    assert "Error" not in "".join(capfd.readouterr())


def test_an_actor_who_enters_later_enters_and_leaves(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    for frame, away in ((1, True), (3, False), (4, True)):
        made.mesh.hide_render = away
        made.mesh.keyframe_insert("hide_render", frame=frame)
    scene.frame_start, scene.frame_end, scene.render.filepath = 1, 4, str(tmp_path / "shot_")
    set_format("PNG")
    bpy.ops.render.render(animation=True)
    covered = [(read_png(tmp_path / f"shot_{frame:04d}.png")[..., 3] > 0.99).sum() for frame in range(1, 5)]
    assert covered[0] == covered[1] == covered[3] == 0 < 2000 < covered[2]


def test_a_view_layer_without_the_rig_is_empty_beside_one_with_it(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    other = scene.view_layers.new("other")
    other.layer_collection.children[made.mesh.users_collection[0].name].exclude = True
    assert (render_png(tmp_path / "first.png")[..., 3] > 0.99).sum() > 2000
    scene.view_layers[0].use = False
    assert render_png(tmp_path / "other.png")[..., 3].max() == 0


def test_one_avatar_without_a_size_leaves_the_other(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    alone = render_png(tmp_path / "alone.png")
    add_rig(engine_avatars / "ben.effigy").armature.scale = 0, 0, 0
    assert np.abs(render_png(tmp_path / "both.png") - alone).max() == 0
    made.armature.scale = 0, 0, 0
    assert render_png(tmp_path / "none.png")[..., 3].max() == 0


def test_an_empty_picture_needs_no_backend(engine_avatars, tmp_path, monkeypatch):
    made = stage(engine_avatars / "ann.effigy")
    hidden(made)
    monkeypatch.delenv("EFFIGY_BACKEND_PYTHON")
    assert render_png(tmp_path / "none.png")[..., 3].max() == 0


def test_a_missing_avatar_that_is_hidden_now_is_told_and_stops_the_render_where_it_appears(
    engine_avatars, tmp_path, capfd
):
    shutil.copy(engine_avatars / "ann.effigy", tmp_path / "gone.effigy")
    made = stage(tmp_path / "gone.effigy")
    (tmp_path / "gone.effigy").unlink()
    for frame, away in ((1, True), (2, False)):
        made.mesh.hide_render = away
        made.mesh.keyframe_insert("hide_render", frame=frame)
    bpy.context.scene.frame_set(1)
    assert render_png(tmp_path / "hidden.png")[..., 3].max() == 0
    assert "is missing. It is not visible in this frame" in "".join(capfd.readouterr())
    bpy.context.scene.frame_set(2)
    with pytest.raises(RuntimeError, match="is not at .*gone.effigy: press Relink"):
        render_png(tmp_path / "there.png")


def test_a_rig_that_is_not_trained_yet_is_told_beside_one_that_is(engine_avatars, tmp_path, capfd):
    stage(engine_avatars / "ann.effigy")
    alone = render_png(tmp_path / "alone.png")
    add_rig(engine_avatars / "ben.effigy").armature.effigy.avatar = ""
    capfd.readouterr()
    assert np.abs(render_png(tmp_path / "both.png") - alone).max() == 0
    assert "has no avatar yet" in "".join(capfd.readouterr())


@pytest.mark.parametrize("how", ["hidden", "scaled"])
def test_a_bake_and_an_export_leave_out_the_frames_without_the_actor(how, engine_avatars, tmp_path, module):
    made = stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, 3
    for frame, away in ((1, True), (2, False), (3, True)):
        if how == "hidden":
            made.mesh.hide_viewport = away
            made.mesh.keyframe_insert("hide_viewport", frame=frame)
        else:
            made.armature.scale = [0.0 if away else 1.0] * 3
            made.armature.keyframe_insert("scale", frame=frame)
    scene.frame_set(1)
    assert bpy.ops.effigy.bake_playback() == {"FINISHED"}
    cache = module("blender_addon.viewport.cache")
    bake = cache.bake_of(made)
    assert bake.count == 1
    assert bpy.ops.effigy.export_splats(filepath=str(tmp_path / "a.ply"), animation=True) == {"FINISHED"}
    counts = [len(read(tmp_path / f"a_{frame:04d}.ply")) for frame in (1, 2, 3)]
    assert counts[0] == counts[2] == 0 < 1000 < counts[1]
    assert scene.frame_current == 1
    bpy.ops.effigy.clear_playback()


def test_a_bake_without_any_visible_frame_is_no_error(engine_avatars, module, capfd):
    made = stage(engine_avatars / "ann.effigy")
    bpy.context.scene.frame_end = 2
    made.mesh.hide_set(True)
    assert bpy.ops.effigy.bake_playback() == {"FINISHED"}
    assert "there is nothing to bake" in "".join(capfd.readouterr())
    with pytest.raises(RuntimeError, match="No avatar is visible in this frame"):
        bpy.ops.effigy.export_splats(filepath="//a.ply")
    for obj in bpy.context.scene.objects:
        obj.effigy.avatar = ""
    with pytest.raises(RuntimeError, match="There is no avatar in this view layer"):
        bpy.ops.effigy.bake_playback()


@pytest.mark.parametrize("way", [hidden, scaled_to_nothing, behind_the_camera, excluded_collection, indirect_only])
def test_the_composite_is_then_the_scene_alone(way, shot, tmp_path):
    for cube in [obj for obj in bpy.context.scene.objects if obj.name.startswith("cube")][1:]:
        bpy.data.objects.remove(cube)
    bpy.ops.effigy.set_up_composite()
    way(shot)
    picture = render_png(tmp_path / "scene.png")
    # The green wall, and black beside it.
    assert np.abs(picture[..., :3] - (0, 0.584, 0)).max(-1)[SIZE // 2, SIZE // 2] < 0.03
    assert (picture[..., 0] < 0.02).all() and (picture[..., 2] < 0.02).all()


def words(panel: type) -> str:
    layout = Layout()
    panel.draw(SimpleNamespace(layout=layout), bpy.context)
    return layout.words


def pass_deleted(avatar_pass: bpy.types.Scene, composite: Any) -> None:
    bpy.data.scenes.remove(avatar_pass)


def compositing_off(avatar_pass: bpy.types.Scene, composite: Any) -> None:
    bpy.context.scene.render.use_compositing = False


def node_deleted(avatar_pass: bpy.types.Scene, composite: Any) -> None:
    composite.id_data.nodes.remove(composite)


def node_muted(avatar_pass: bpy.types.Scene, composite: Any) -> None:
    composite.mute = True


def node_unlinked(avatar_pass: bpy.types.Scene, composite: Any) -> None:
    composite.id_data.links.remove(composite.inputs["Avatars"].links[0])


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        (pass_deleted, "was deleted, so its images show no avatars"),
        (compositing_off, "Compositing is switched off"),
        (node_deleted, "does not use the images of"),
        (node_muted, "does not use the images of"),
        (node_unlinked, "does not use the images of"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_composite_that_lost_its_avatars_says_so(way, sentence, shot, module, tmp_path, capfd):
    avatar_pass, nodes = module("blender_addon.engine.avatar_pass"), module("blender_addon.engine.depth_composite")
    panel = module("blender_addon.engine.panels").EFFIGY_PT_engine_composite
    bpy.ops.effigy.set_up_composite()
    scene = bpy.context.scene
    assert avatar_pass.trouble(scene) is None and sentence not in words(panel)
    way(avatar_pass.find_pass(scene), nodes.find_composite(scene))
    scene.render.resolution_percentage = 25
    capfd.readouterr()
    render_png(tmp_path / "without.png")
    assert sentence in "".join(capfd.readouterr())
    assert sentence in words(panel) and "Set Up Again" in words(panel)
    if way is not node_muted:
        bpy.ops.effigy.set_up_composite()
        assert avatar_pass.trouble(scene) is None


def test_a_renamed_view_layer_is_still_followed(shot, tmp_path):
    bpy.ops.effigy.set_up_composite()
    scene = bpy.context.scene
    scene.view_layers[0].name = "beauty"
    excluded_collection(shot)
    picture = render_png(tmp_path / "scene.png")
    assert (picture[..., 0] < 0.02).all()


def test_the_batch_of_a_farm_goes_on(engine_avatars, tmp_path):
    """A frame that another machine renders alone, before the actor enters."""
    made = stage(engine_avatars / "ann.effigy")
    made.armature.location = 0, 0, 9
    scene = bpy.context.scene
    scene.frame_start = scene.frame_end = 7
    scene.render.filepath = str(tmp_path / "farm_")
    set_format("EXR")
    bpy.ops.render.render(animation=True)
    assert (tmp_path / "farm_0007.exr").is_file()


def test_a_viewport_asks_for_nothing_of_a_head_without_a_size(engine_avatars, module, monkeypatch):
    live = module("blender_addon.viewport.live")
    made = stage(engine_avatars / "ann.effigy")
    bpy.context.view_layer.update()
    avatar, asked = live.AvatarState(), []
    monkeypatch.setattr(live, "_visible_avatars", lambda context: [(made, avatar)])
    monkeypatch.setattr(live, "_update_splats", lambda *_: asked.append(1))
    viewpoint = module("blender_addon.viewport.viewpoint").Viewpoint.from_view_matrix(np.eye(4), False)

    def shown() -> int:
        live.state.scene_changed_at = np.inf
        return len(live.update_view(bpy.context, live.state.active_view, viewpoint))

    monkeypatch.setattr(live, "_track_view", lambda *_: None)
    assert shown() == 1 and asked == [1]
    made.armature.scale = 0, 0, 0
    bpy.context.view_layer.update()
    assert shown() == 0 and asked == [1]
    live.state.scene_changed_at = 0.0
