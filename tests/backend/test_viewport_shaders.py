"""The viewport's shaders stay within what OpenGL, Vulkan and Metal have in common.

They are read through an imitation of Blender's `gpu` module (`bench.shader_translation`), so this runs without Blender.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bench.shader_translation import TOOLS, CreateInfo, CreateInfoOfBlender5, declared, recorded, translate

NAMES = ("splats", "mesh", "composite")
ALL = [
    (backend, kind, name)
    for backend in ("OPENGL", "VULKAN", "METAL")
    for kind in (CreateInfo, CreateInfoOfBlender5)
    for name in NAMES
]
BUILT_IN = {"linear", "half", "fragment", "vertex", "constant", "device", "kernel", "thread", "sample", "texture"}
"""Names that mean something in Metal's C++."""


@pytest.mark.parametrize(("backend", "kind", "name"), ALL)
def test_push_constants_fit_into_what_vulkan_guarantees(backend, kind, name) -> None:
    info = recorded(backend, kind)[name]
    assert 0 < info.constant_bytes() <= 128
    assert not [name for kind, name in info.constants if kind == "VEC3"], "the layout of vec3 differs between backends"
    assert len(info.samplers) <= 16 and all(kind == "FLOAT_2D" for _, kind, _ in info.samplers)


@pytest.mark.parametrize(("backend", "kind", "name"), ALL)
def test_the_fragments_depth_is_written_only_where_it_is_declared(backend, kind, name) -> None:
    info = recorded(backend, kind)[name]
    allowed = info.depth == "ANY" or (backend == "OPENGL" and info.defines.get("depth_unchanged") == "depth_any")
    assert ("gl_FragDepth" in info.sources["frag"]) == (name == "composite" and allowed)
    assert name != "composite" or allowed or "device_depth(texel, alpha)" in info.sources["vert"]


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_also_c_plus_plus_for_metal(name) -> None:
    """Blender compiles it for Metal with vector types of C++, which have no implicit conversions in calls."""
    for backend in ("OPENGL", "METAL"):
        info = recorded(backend, CreateInfo)[name]
        passed = [member for interface in info.interfaces for _, _, member in interface.members]
        assert all(re.search(rf"\b{member} =", info.sources["vert"]) for member in passed)
        for text in info.sources.values():
            assert not re.search(r"\bmat[234]\(\w+\)", text), "a matrix from a matrix"
            assert not re.search(r"\bstep\([\d.]+,", text), "a scalar edge of a vector step"
            assert not re.search(r"\bclamp\([^;]*\.(rgb|xyz)\b[^;]*, [\d.]+, [\d.]+\)", text), "scalar bounds"
            own = re.findall(r"\b(?:float|int|bool|[bi]?vec\d|mat\d)\s+(\w+)\s*[=(,;)]", text)
            assert not BUILT_IN & {*own, *passed, *(constant for _, constant in info.constants)}


@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS.values())}")
@pytest.mark.parametrize(("backend", "kind", "name"), [row for row in ALL if row[0] != "OPENGL"])
def test_the_text_is_translated_to_spirv_and_to_metals_language(backend, kind, name, tmp_path: Path) -> None:
    info = recorded(backend, kind)[name]
    for stage in ("vert", "frag"):
        size, lines = translate(declared(info, stage), stage, tmp_path)
        assert size > 200 and lines > 10
