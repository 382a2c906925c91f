"""An avatar's textures as image files, and a painted one back on the avatar. tests/backend/test_textures.py looks at
what is painted.
"""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest
from engine_scenes import stage

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
    image = bpy.data.images.new("painted", width, height, float_buffer=path.suffix == ".exr")
    image.filepath_raw, image.file_format = str(path), "OPEN_EXR" if path.suffix == ".exr" else "PNG"
    if path.suffix == ".exr":
        # A file of its own made it sRGB, with which Blender 4.2 writes values that it does not read back.
        image.colorspace_settings.name = "Linear Rec.709"
    image.pixels.foreach_set(pixels.ravel().astype(np.float32))
    image.save()
    bpy.data.images.remove(image)


def colors_at_rest(rig, module) -> np.ndarray:
    player = module("blender_addon.player.players").player_of(
        rig, Path(bpy.path.abspath(rig.armature.effigy.avatar)), bpy.context.evaluated_depsgraph_get()
    )
    pose = {name: np.zeros(3) for name in ("neck", "jaw", "eye_L", "eye_R")}
    pose |= {"expression": np.zeros(52), "root": np.eye(4)}
    return player.splats(pose, {"view": np.array((0, 0.02, 0.7))})["colors"]


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
    original, before = (engine_avatars / "cat.effigy").read_bytes(), colors_at_rest(cat, module)
    bpy.ops.effigy.export_textures(filepath=str(tmp_path / "cat"))
    pixels = pixels_of(tmp_path / "cat_color.png")
    pixels[..., 0] = 0.75
    if suffix == ".exr":
        # Blender keeps what it paints on in linear light.
        pixels[..., :3] = np.where(
            pixels[..., :3] <= 0.04045, pixels[..., :3] / 12.92, ((pixels[..., :3] + 0.055) / 1.055) ** 2.4
        )
    write(tmp_path / f"painted{suffix}", pixels)
    bpy.ops.effigy.import_texture(filepath=str(tmp_path / f"painted{suffix}"))
    path = tmp_path / "cat_painted.effigy"
    assert Path(bpy.path.abspath(cat.armature.effigy.avatar)) == path
    assert (engine_avatars / "cat.effigy").read_bytes() == original and path.stat().st_size == len(original)
    after = colors_at_rest(cat, module)
    anchors = slice(0, 5200)
    seen = np.abs(after[anchors] - before[anchors]).max(1) > 1 / 255
    assert seen.mean() > 0.9
    assert np.abs(np.median(after[anchors][seen][:, 0]) - 0.75) < 0.02
    assert np.abs(after[anchors][:, 1:] - before[anchors][:, 1:]).max() < 0.03
    # A second coat goes to another file.
    bpy.ops.effigy.export_textures(filepath=str(tmp_path / "again"))
    pixels = pixels_of(tmp_path / "again_color.png")
    pixels[..., 1] = 0.1
    write(tmp_path / "again_color.png", pixels)
    bpy.ops.effigy.import_texture(filepath=str(tmp_path / "again_color.png"))
    assert (tmp_path / "cat_painted-2.effigy").is_file() and path.is_file()


def test_what_cannot_be_painted_gives_a_sentence(cat, engine_avatars, tmp_path):
    small = np.full((30, 20, 4), 0.5)
    write(tmp_path / "small.png", small)
    (tmp_path / "text.png").write_text("no image")
    for name, sentence in (
        ("small.png", "20 × 30 texels: paint on the exported texture"),
        ("text.png", "no image that Blender reads|texels: paint on"),
        ("none.png", "There is no"),
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.png", "taken", "text.png"]


def test_files_without_painted_colours_get_a_sentence(cat, tmp_path):
    before = cat.armature.effigy.avatar
    write(tmp_path / "cat_opacity.png", np.ones((SIZE, SIZE, 4)))
    (tmp_path / "page.png").write_text("<html>")
    for name, sentence in (("cat_opacity.png", "holds no colours"), ("page.png", "no image that Blender reads")):
        with pytest.raises(RuntimeError, match=sentence):
            bpy.ops.effigy.import_texture(filepath=str(tmp_path / name))
    assert cat.armature.effigy.avatar == before and not list(tmp_path.glob("*.effigy"))
