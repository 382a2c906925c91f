"""Cryptomatte and index passes of the engine Effigy, in the file as other programs read it."""

from __future__ import annotations

import json
import struct

import bpy
import numpy as np
import pytest
from engine_scenes import add_rig, read_by_backend, set_format, stage

SIDE = 64
KINDS = ("object", "material", "asset")


def small(avatar):
    made = stage(avatar)
    scene, layer = bpy.context.scene, bpy.context.scene.view_layers[0]
    scene.render.resolution_x = scene.render.resolution_y = SIDE
    for kind in KINDS:
        setattr(layer, f"use_pass_cryptomatte_{kind}", True)
    layer.use_pass_object_index = layer.use_pass_material_index = True
    return made


def render(path):
    set_format("EXR")
    bpy.context.scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    return read_by_backend(path)


def channel(file, ending):
    return next(value for name, value in file.items() if name.endswith(ending))


def shares(file, kind, levels=6):
    """(H, W) by number."""
    found = {}
    for number in range(levels // 2):
        for identity, share in ("RG", "BA"):
            ids, covers = (channel(file, f"{kind}{number:02d}.{letter}") for letter in (identity, share))
            for value in np.unique(ids[covers > 0]):
                found[float(value)] = found.get(float(value), 0) + np.where(ids == value, covers, 0)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", 0),
        ("hello", 0x248BFA47),
        ("hello, world", 0x149BBB7F),
        ("The quick brown fox jumps over the lazy dog", 0x2E4FF723),
    ],
)
def test_names_have_the_hash_of_the_specification(name, expected, module):
    assert module("blender_addon.engine.cryptomatte").hash_of(name) == expected


def test_a_number_is_never_infinite_nor_denormal(module, monkeypatch):
    crypto = module("blender_addon.engine.cryptomatte")
    for value in (0xFF812345, 0x00000001, 0x7F800000):
        monkeypatch.setattr(crypto, "hash_of", lambda _, value=value: value)
        number = crypto.number_of("name")
        assert np.isfinite(number) and abs(number) >= np.finfo(np.float32).tiny
        assert struct.unpack("<I", struct.pack("<f", number))[0] & 0x7FFFFF == value & 0x7FFFFF


def split_in_two(made) -> None:
    """The faces on the person's left get a material of their own."""
    mesh = made.mesh.data
    scalp = bpy.data.materials.new("Scalp")
    scalp.pass_index = 7
    mesh.materials.append(scalp)
    for polygon in mesh.polygons:
        polygon.material_index = len(mesh.materials) - 1 if polygon.center.x > 0 else 0


@pytest.mark.parametrize("avatar", ["cat", "ann"])
def test_objects_and_materials_are_cut_out_of_the_image(engine_avatars, tmp_path, module, avatar):
    number_of = module("blender_addon.engine.cryptomatte").number_of
    made = small(engine_avatars / f"{avatar}.effigy")
    made.mesh.name, made.armature.name, made.mesh.pass_index = "Ännas head", "Anna", 3
    split_in_two(made)
    file = render(tmp_path / "mattes.exr")
    alpha = channel(file, "Combined.A")
    (number, covers), *others = shares(file, "CryptoObject").items()
    assert not others and np.float32(number) == number_of("Ännas head") and np.abs(covers - alpha).max() < 1e-3
    assert list(shares(file, "CryptoAsset")) == [float(number_of("Anna"))]
    materials = shares(file, "CryptoMaterial")
    skin, scalp = (materials[float(number_of(name))] for name in (made.mesh.data.materials[0].name, "Scalp"))
    assert np.abs(skin + scalp - alpha).max() < 1e-3
    # Her left is on the right of the image.
    columns = np.arange(SIDE)
    left, right = ((share.sum(0) * columns).sum() / share.sum() for share in (skin, scalp))
    assert right > left + 5 and scalp[:, : SIDE // 4].max() < 0.1
    assert (channel(file, "IndexOB.X") == np.where(alpha > 0.5, 3, 0)).mean() > 0.99
    assert set(np.unique(channel(file, "IndexMA.X"))) == {0, 7}
    names = {str(value): key for key, value in file.items() if key.startswith("cryptomatte/") and key.endswith("/name")}
    layer = bpy.context.scene.view_layers[0].name
    assert set(names) == {f"{layer}.Crypto{kind.capitalize()}" for kind in KINDS}
    prefix = names[f"{layer}.CryptoObject"].removesuffix("/name")
    assert str(file[f"{prefix}/hash"]) == "MurmurHash3_32" and str(file[f"{prefix}/conversion"]) == "uint32_to_float32"
    manifest = json.loads(str(file[f"{prefix}/manifest"]))
    assert manifest == {"Ännas head": f"{module('blender_addon.engine.cryptomatte').hash_of('Ännas head'):08x}"}


@pytest.mark.parametrize("avatar", ["cat", "ann"])
def test_the_head_in_front_covers_the_other_and_a_holdout_both(engine_avatars, tmp_path, module, avatar):
    number_of = module("blender_addon.engine.cryptomatte").number_of
    front = small(engine_avatars / f"{avatar}.effigy")
    back = add_rig(engine_avatars / f"{avatar}.effigy")
    toward = bpy.context.scene.camera.location.normalized()
    back.armature.location = -0.3 * toward
    bpy.context.scene.view_layers[0].pass_cryptomatte_depth = 2
    file = render(tmp_path / "two.exr")
    found, alpha = shares(file, "CryptoObject", 2), channel(file, "Combined.A")
    near, far = (found[float(number_of(rig.mesh.name))] for rig in (front, back))
    assert np.abs(near + far - alpha).max() < 1e-3
    assert near.sum() > 3 * far.sum() > 0 and far[near > 0.9].max() < 0.11
    front.mesh.is_holdout = True
    held = shares(render(tmp_path / "held.exr"), "CryptoObject", 2)
    assert list(held) == [float(number_of(back.mesh.name))]
    assert np.abs(held[float(number_of(back.mesh.name))] - far).max() < 1e-3


def test_blur_is_in_the_mattes(engine_avatars, tmp_path):
    small(engine_avatars / "cat.effigy")
    dof = bpy.context.scene.camera.data.dof
    dof.use_dof, dof.aperture_fstop, dof.focus_distance = True, 2.0, 0.4
    bpy.context.scene.effigy.blur_images = 6
    file = render(tmp_path / "blurred.exr")
    (covers,) = shares(file, "CryptoObject").values()
    alpha = channel(file, "Combined.A")
    assert np.abs(covers - alpha).max() < 1e-3 and ((alpha > 0.1) & (alpha < 0.9)).sum() > 40


def test_blenders_cryptomatte_node_cuts_out_a_material(engine_avatars, tmp_path, module):
    made = small(engine_avatars / "cat.effigy")
    split_in_two(made)
    expected = shares(render(tmp_path / "mattes.exr"), "CryptoMaterial")
    scene = bpy.context.scene
    tree = module("blender_addon.engine.depth_composite")._compositor(scene)
    scene.render.use_compositing = True
    node = tree.nodes.new("CompositorNodeCryptomatteV2")
    node.scene, node.source = scene, "RENDER"
    node.layer_name = f"{scene.view_layers[0].name}.CryptoMaterial"
    node.matte_id = "Scalp"
    end = next((other for other in tree.nodes if other.type in {"COMPOSITE", "GROUP_OUTPUT"}), None)
    tree.links.new(node.outputs["Matte"], (end or tree.nodes.new("CompositorNodeComposite")).inputs[0])
    matte = channel(render(tmp_path / "composited.exr"), "Combined.R")
    scalp = expected[float(module("blender_addon.engine.cryptomatte").number_of("Scalp"))]
    assert np.abs(matte - scalp).max() < 1e-3 and scalp.max() > 0.9
