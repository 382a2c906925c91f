"""The avatar of a rig as a web page: what the file holds. tests/backend/test_web_page.py opens one in a browser."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import bpy
import numpy as np
import pytest
from engine_scenes import stage


def entries_of(content: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def inside(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The tensors and the header of the avatar in a page."""
    packed = re.search(rb'<script id="avatar" type="text/plain">([^<]+)</script>', path.read_bytes())[1]
    entries, data = entries_of(gzip.decompress(base64.b64decode(packed)))
    header = json.loads(entries.pop("__metadata__")["effigy"])
    dtypes = {"F16": "<f2", "F32": "<f4", "I16": "<i2", "I32": "<i4"}
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], dtypes[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in entries.items()
    }, header


def without_sliders(source: Path, target: Path) -> None:
    """The file as it was before it held sliders and deltas."""
    entries, data = entries_of(source.read_bytes())
    header = json.loads(entries["__metadata__"]["effigy"])
    del header["baked"]["sliders"]
    made, parts, at = {"__metadata__": {"effigy": json.dumps(header)}}, [], 0
    for name, entry in entries.items():
        if name == "__metadata__" or "slider" in name or "delta" in name:
            continue
        parts.append(data[slice(*entry["data_offsets"])])
        made[name] = entry | {"data_offsets": [at, at + len(parts[-1])]}
        at += len(parts[-1])
    text = json.dumps(made).encode()
    target.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def test_a_page_needs_no_worker_and_has_the_rigs_name(engine_avatars, module, tmp_path, monkeypatch):
    rig = stage(engine_avatars / "cat.effigy")
    rig.mesh.name = "Cat & Co"
    monkeypatch.setattr(module("blender_addon.worker.session"), "client", None)
    bpy.ops.effigy.export_web_page(filepath=str(tmp_path / "cat"))
    page = (tmp_path / "cat.html").read_text("utf-8")
    assert "<title>Cat &amp; Co</title>" in page and len(page) < 3e6
    tensors, header = inside(tmp_path / "cat.html")
    assert len(header["baked"]["sliders"]) == 52 == len(tensors["baked.slider_expression"])


def test_the_rig_gives_what_an_older_file_lacks(engine_avatars, tmp_path):
    stage(engine_avatars / "cat.effigy")
    bpy.ops.effigy.export_web_page(filepath=str(tmp_path / "new.html"))
    without_sliders(engine_avatars / "cat.effigy", tmp_path / "cat.effigy")
    bpy.ops.wm.read_homefile(use_empty=True)
    stage(tmp_path / "cat.effigy")
    bpy.ops.effigy.export_web_page(filepath=str(tmp_path / "old.html"))
    (new, header), (old, older) = inside(tmp_path / "new.html"), inside(tmp_path / "old.html")
    assert old.keys() == new.keys() and older["baked"]["sliders"] == header["baked"]["sliders"]
    for name in ("baked.slider_expression", "baked.slider_rotations", "baked.delta_units"):
        assert np.abs(old[name] - new[name]).max() < 1e-6, name
    # Blender keeps a shape key as places in single precision: a row may list a vertex more or less.
    size = lambda tensors: np.diff(tensors["baked.delta_starts"].astype(int))
    assert np.abs(size(old) - size(new)).max() <= 20
    smile = header["baked"]["sliders"].index("mouthSmileLeft")
    for tensors in (old, new):
        entries = slice(*tensors["baked.delta_starts"][smile : smile + 2])
        dense = np.zeros((5200, 3))
        dense[tensors["baked.delta_vertices"][entries]] = (
            tensors["baked.delta_units"][smile] * tensors["baked.delta_steps"][entries]
        )
        tensors["smile"] = dense
    assert np.abs(new["smile"]).max() > 0.005 and np.abs(old["smile"] - new["smile"]).max() < 3e-6


def changed(source: Path, target: Path, name: str, value: float) -> None:
    """A copy of an avatar's file with all numbers of a tensor changed."""
    content = bytearray(source.read_bytes())
    entries, data = entries_of(source.read_bytes())
    begin, end = (len(content) - len(data) + offset for offset in entries[name]["data_offsets"])
    dtype = {"F16": "<f2", "F32": "<f4", "I16": "<i2", "I32": "<i4"}[entries[name]["dtype"]]
    np.frombuffer(content, dtype, (end - begin) // np.dtype(dtype).itemsize, begin)[:] = value
    target.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("baked.vertices", np.nan),
        ("baked.vertices", 1e30),
        ("baked.features", np.inf),
        ("networks.blendshapes.mix.0.bias", 3e38),
        ("networks.blendshapes.mean", 65504),
    ],
)
def test_a_hostile_avatar_gives_a_sentence(engine_avatars, tmp_path, name, value):
    rig = stage(engine_avatars / "cat.effigy")
    changed(engine_avatars / "cat.effigy", tmp_path / "mad.effigy", name, value)
    rig.armature.effigy.avatar = str(tmp_path / "mad.effigy")
    with pytest.raises(RuntimeError, match="is damaged"):
        bpy.ops.effigy.export_web_page(filepath=str(tmp_path / "mad.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["mad.effigy"]


@pytest.mark.parametrize(
    ("name", "value"), [("delta_starts", 2**31 - 1), ("delta_vertices", -1), ("delta_units", 1e30)]
)
def test_how_the_head_moves_is_not_taken_from_the_file(engine_avatars, tmp_path, name, value):
    rig = stage(engine_avatars / "cat.effigy")
    bpy.ops.effigy.export_web_page(filepath=str(tmp_path / "good.html"))
    changed(engine_avatars / "cat.effigy", tmp_path / "mad.effigy", f"baked.{name}", value)
    rig.armature.effigy.avatar = str(tmp_path / "mad.effigy")
    bpy.ops.effigy.export_web_page(filepath=str(tmp_path / "mad.html"))
    assert (tmp_path / "mad.html").read_bytes() == (tmp_path / "good.html").read_bytes()


def test_an_avatar_that_only_the_backend_plays_gives_a_sentence(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    with pytest.raises(RuntimeError, match="press Make Playable without Backend"):
        bpy.ops.effigy.export_web_page(filepath=str(tmp_path / "ann.html"))
    with pytest.raises(RuntimeError, match="Choose a name"):
        bpy.ops.effigy.export_web_page()
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_is_needed_is_a_sentence(engine_avatars, tmp_path):
    stage(engine_avatars / "cat.effigy")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RuntimeError, match="a file stands where a folder is needed"):
        bpy.ops.effigy.export_web_page(filepath=str(tmp_path / "taken" / "cat.html"))
    assert bpy.ops.effigy.export_web_page.get_rna_type().properties["check_existing"].default
