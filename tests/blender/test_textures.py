"""An avatar's textures as image files, and a painted one back on the avatar. tests/backend/test_textures.py looks at
what is painted.
"""

from __future__ import annotations

import functools
from pathlib import Path

import bpy
import numpy as np
import pytest
from engine_scenes import render_png, stage
from viewport_scenes import drawn, read_pose, view_camera, viewport

SIZE = 512
"""Side of the textures here; an artist gets finer ones."""


@pytest.fixture
def cat(engine_avatars, module, monkeypatch):
    monkeypatch.setattr(module("blender_addon.textures.work"), "SIZE", SIZE)
    return stage(engine_avatars / "cat.effigy")


def pixels_of(path: Path) -> np.ndarray:
    image = bpy.data.images.load(str(path))
    assert tuple(image.size) == (SIZE, SIZE)
    pixels = np.empty(4 * SIZE * SIZE, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(SIZE, SIZE, 4)


def write(path: Path, pixels: np.ndarray) -> None:
    height, width = pixels.shape[:2]
    exact = path.suffix == ".exr"
    image = bpy.data.images.new("painted", width, height, float_buffer=exact)
    if exact:
        image.colorspace_settings.name = "Non-Color"
    # Before the format, which it would take back.
    image.pixels.foreach_set(pixels.ravel().astype(np.float32))
    image.filepath_raw, image.file_format = str(path), "OPEN_EXR" if exact else "PNG"
    image.save()
    bpy.data.images.remove(image)


def test_three_textures_are_written_and_an_untouched_one_changes_nothing(cat, module, tmp_path, monkeypatch):
    monkeypatch.setattr(module("blender_addon.worker.session"), "client", None)
    bpy.ops.effigy.export_textures(filepath=str(tmp_path / "cat_color.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat_color.png", "cat_offsets.exr", "cat_opacity.png"]
    assert not bpy.data.images
    # Cat is coloured by place: the top of the head is not as dark as the texture's empty middle.
    assert pixels_of(tmp_path / "cat_color.png")[..., :3].max() > 0.6
    opacity = pixels_of(tmp_path / "cat_opacity.png")[..., 0]
    assert 0.5 < np.median(opacity[opacity > 0]) <= 1
    assert np.abs(pixels_of(tmp_path / "cat_offsets.exr")[..., :3]).max() < 0.1
    before = cat.armature.effigy.avatar
    with pytest.raises(RuntimeError, match="as it was exported"):
        bpy.ops.effigy.import_texture(filepath=str(tmp_path / "cat_color.png"))
    assert cat.armature.effigy.avatar == before and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("suffix", [".png", ".exr"])
def test_a_painted_texture_gives_the_avatar_a_painted_copy_of_its_file(cat, engine_avatars, module, tmp_path, suffix):
    original, before = (engine_avatars / "cat.effigy").read_bytes(), player_at_rest(cat, module)["colors"]
    bpy.ops.effigy.export_textures(filepath=str(tmp_path / "cat"))
    pixels = pixels_of(tmp_path / "cat_color.png")
    pixels[..., 0] = 0.75
    if suffix == ".exr":
        # Blender keeps what it paints on in linear light.
        pixels[..., :3] = np.where(
            pixels[..., :3] <= 0.04045, pixels[..., :3] / 12.92, ((pixels[..., :3] + 0.055) / 1.055) ** 2.4
        )
    write(tmp_path / f"painted_color{suffix}", pixels)
    bpy.ops.effigy.import_texture(filepath=str(tmp_path / f"painted_color{suffix}"))
    path = tmp_path / "cat_painted.effigy"
    assert Path(bpy.path.abspath(cat.armature.effigy.avatar)) == path
    assert (engine_avatars / "cat.effigy").read_bytes() == original and path.stat().st_size == len(original)
    after = player_at_rest(cat, module)["colors"]
    anchors = slice(0, 5200)
    seen = np.abs(after[anchors] - before[anchors]).max(1) > 1 / 255
    assert seen.mean() > 0.9
    assert np.abs(np.median(after[anchors][seen][:, 0]) - 0.75) < 0.02
    assert np.abs(after[anchors][:, 1:] - before[anchors][:, 1:]).max() < 0.03


def player_at_rest(rig, module):
    """The Gaussians as Blender evaluates them, seen from the front."""
    player = module("blender_addon.player.players").player_of(
        rig, Path(bpy.path.abspath(rig.armature.effigy.avatar)), bpy.context.evaluated_depsgraph_get()
    )
    pose = {name: np.zeros(3) for name in ("neck", "jaw", "eye_L", "eye_R")}
    pose |= {"expression": np.zeros(52), "root": np.eye(4)}
    return player.splats(pose, {"view": np.array((0, 0.02, 0.7))})


def repaint(folder: Path, stem: str, end: str, change) -> None:
    """Exports the textures, paints on one and imports it."""
    bpy.ops.effigy.export_textures(filepath=str(folder / stem))
    pixels = pixels_of(folder / f"{stem}{end}")
    write(folder / f"{stem}{end}", change(pixels))
    bpy.ops.effigy.import_texture(filepath=str(folder / f"{stem}{end}"))


def test_painting_again_makes_another_copy_so_that_undo_has_the_first(cat, engine_avatars, module, tmp_path):
    original = (engine_avatars / "cat.effigy").read_bytes()
    copies, contents = [], []
    for stem, channel, value in (("first", 0, 0.75), ("second", 1, 0.1), ("third", 2, 0.5)):
        paint = functools.partial(np.where, np.arange(4) == channel, value)
        repaint(tmp_path, stem, "_color.png", paint)
        copies.append(Path(bpy.path.abspath(cat.armature.effigy.avatar)))
        contents.append(copies[-1].read_bytes())
        bpy.ops.ed.undo_push(message=stem)
    assert [path.name for path in copies] == ["cat_painted.effigy", "cat_painted-2.effigy", "cat_painted-3.effigy"]
    colors = np.median(player_at_rest(cat, module)["colors"], 0)
    assert np.abs(colors - (0.75, 0.1, 0.5)).max() < 0.03
    assert (engine_avatars / "cat.effigy").read_bytes() == original
    for copy in (copies[1], copies[0]):
        bpy.ops.ed.undo()
        shown = next(obj.effigy.avatar for obj in bpy.data.objects if obj.type == "ARMATURE")
        assert Path(bpy.path.abspath(shown)) == copy
    assert [path.read_bytes() for path in copies] == contents and len(set(contents)) == 3


def in_viewport(rig, module) -> np.ndarray:
    """Alpha (H, W) of the 3D View, without a worker."""
    camera = view_camera()
    player = module("blender_addon.player.players").player_of(
        rig, Path(bpy.path.abspath(rig.armature.effigy.avatar)), bpy.context.evaluated_depsgraph_get()
    )
    pose = read_pose(rig)
    seen_from = viewport("viewpoint").Viewpoint.from_view_matrix(camera.view, camera.orthographic)
    splats = viewport("splats").Splats.from_answer(player.splats(pose.message(), seen_from.message()), pose.head_motion)
    return drawn([(splats, splats.motion, viewport("splats").DrawStyle())], camera)[..., 3]


def test_painted_opacity_lets_the_background_through_in_renders_and_in_the_view(cat, module, tmp_path, monkeypatch):
    monkeypatch.setattr(module("blender_addon.worker.session"), "client", None)
    before = render_png(tmp_path / "before.png")[..., 3], in_viewport(cat, module)

    def paint(pixels):
        pixels[:, : SIZE // 2, :3] = 0
        return pixels

    repaint(tmp_path, "cat", "_opacity.png", paint)
    after = render_png(tmp_path / "after.png")[..., 3], in_viewport(cat, module)
    for solid, painted in zip(before, after, strict=True):
        head = solid > 0.9
        gone, kept = head & (painted < 0.05), head & (np.abs(painted - solid) < 0.02)
        assert gone.sum() > 200 and kept.sum() > 200


def test_painted_offsets_move_the_gaussians(cat, module, tmp_path):
    before = player_at_rest(cat, module)["means"]

    def paint(pixels):
        pixels[..., 2] += 0.004
        return pixels

    repaint(tmp_path, "cat", "_offsets.exr", paint)
    moved = player_at_rest(cat, module)["means"] - before
    # All that have texels; the inside of the mouth shares some.
    assert np.quantile(np.abs(moved - (0, 0, 0.004)).max(1), 0.5) < 2e-5
    assert np.quantile(np.abs(moved[:5200] - (0, 0, 0.004)).max(1), 0.9) < 1e-3


def test_what_cannot_be_painted_gives_a_sentence(cat, engine_avatars, tmp_path):
    small = np.full((30, 20, 4), 0.5)
    write(tmp_path / "small_color.png", small)
    (tmp_path / "text_color.png").write_text("no image")
    # A square picture that has nothing to do with the avatar.
    square = np.full((SIZE, SIZE, 4), 0.5)
    for name in ("portrait.png", "cat_offsets.png", "far_offsets.exr"):
        write(tmp_path / name, square)
    write(tmp_path / "mad_offsets.exr", np.full((SIZE, SIZE, 4), np.nan))
    made = sorted(tmp_path.iterdir())
    for name, sentence in (
        ("small_color.png", "20 × 30 texels: paint on the exported texture"),
        ("text_color.png", "no image that Blender reads|texels: paint on"),
        ("none_color.png", "There is no"),
        ("portrait.png", "does not say what was painted: keep _color, _opacity or _offsets"),
        ("cat_offsets.png", "cannot hold offsets, which are metres"),
        ("far_offsets.exr", r"moves Gaussians by 0\.5 m"),
        ("mad_offsets.exr", "not finite"),
        ("", "Choose the painted texture"),
    ):
        with pytest.raises(RuntimeError, match=sentence):
            bpy.ops.effigy.import_texture(filepath=str(tmp_path / name) if name else "")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RuntimeError, match="a file stands where a folder is needed"):
        bpy.ops.effigy.export_textures(filepath=str(tmp_path / "taken" / "cat"))
    cat.mesh.data.uv_layers.remove(cat.mesh.data.uv_layers[0])
    with pytest.raises(RuntimeError, match="has no UV map any more"):
        bpy.ops.effigy.export_textures(filepath=str(tmp_path / "cat"))
    assert not bpy.data.images
    bpy.ops.wm.read_homefile(use_empty=True)
    stage(engine_avatars / "ann.effigy")
    with pytest.raises(RuntimeError, match="press Make Playable without Backend"):
        bpy.ops.effigy.export_textures(filepath=str(tmp_path / "ann"))
    assert sorted(tmp_path.iterdir()) == sorted([*made, tmp_path / "taken"])
