"""The viewport's shaders, translated as drivers do: to SPIR-V (Vulkan) and to the Metal Shading Language.

    python3 build.py bench shader_translation

Needs `glslangValidator`, `spirv-val` and `spirv-cross` (Debian's packages glslang-tools, spirv-tools and spirv-cross).
Blender adds the declarations of the create-info to a shader's text; `declared` writes the same declarations for
Vulkan. A row for each stage; one that is refused makes the exit code 1. Blender itself does not translate for Metal but
compiles the text as C++, which only a Mac can try.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Final
from unittest import mock

SHADERS: Final = Path(__file__).parents[1] / "blender_addon" / "viewport" / "shaders.py"
TOOLS: Final = {"glslangValidator": "glslang-tools", "spirv-val": "spirv-tools", "spirv-cross": "spirv-cross"}
"""Program -> Debian's package."""
TYPES: Final = {"FLOAT": "float", "VEC2": "vec2", "VEC3": "vec3", "VEC4": "vec4", "MAT4": "mat4"}
SIZES: Final = {"FLOAT": (4, 4), "VEC2": (8, 8), "VEC3": (12, 16), "VEC4": (16, 16), "MAT4": (64, 16)}
"""Bytes and alignment of a push constant in the layout std430."""


@dataclass
class Interface:
    """Records what is called on a `GPUStageInterfaceInfo`."""

    name: str
    members: list[tuple[str, str, str]] = field(default_factory=list)
    """(interpolation, kind, name)."""

    def smooth(self, kind: str, name: str) -> None:
        self.members.append(("smooth", kind, name))

    def flat(self, kind: str, name: str) -> None:
        self.members.append(("flat", kind, name))


@dataclass
class CreateInfo:
    """Records what is called on a `GPUShaderCreateInfo` of Blender before 5.0."""

    constants: list[tuple[str, str]] = field(default_factory=list)
    samplers: list[tuple[int, str, str]] = field(default_factory=list)
    inputs: list[tuple[int, str, str]] = field(default_factory=list)
    outputs: list[tuple[int, str, str]] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)
    defines: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """Stage, `vert` or `frag` -> text."""
    depth: str = "UNCHANGED"

    def push_constant(self, kind: str, name: str) -> None:
        self.constants.append((kind, name))

    def sampler(self, slot: int, kind: str, name: str) -> None:
        self.samplers.append((slot, kind, name))

    def vertex_in(self, slot: int, kind: str, name: str) -> None:
        self.inputs.append((slot, kind, name))

    def vertex_out(self, interface: Interface) -> None:
        self.interfaces.append(interface)

    def fragment_out(self, slot: int, kind: str, name: str) -> None:
        self.outputs.append((slot, kind, name))

    def define(self, name: str, value: str) -> None:
        self.defines[name] = value

    def vertex_source(self, text: str) -> None:
        self.sources["vert"] = text

    def fragment_source(self, text: str) -> None:
        self.sources["frag"] = text

    def constant_bytes(self) -> int:
        """Size of the push constants."""
        end = 0
        for kind, _ in self.constants:
            size, alignment = SIZES[kind]
            end = -(-end // alignment) * alignment + size
        return end


class CreateInfoOfBlender5(CreateInfo):
    """Records what is called on a `GPUShaderCreateInfo` of Blender 5.0 and later."""

    def depth_write(self, value: str) -> None:
        self.depth = value


def recorded(backend: str, kind: type[CreateInfo] = CreateInfoOfBlender5) -> dict[str, CreateInfo]:
    """What each of the viewport's shaders declares under a backend (OPENGL, VULKAN or METAL), by name."""
    imitation = ModuleType("gpu")
    imitation.types = SimpleNamespace(GPUShaderCreateInfo=kind, GPUStageInterfaceInfo=Interface)
    imitation.shader = SimpleNamespace(create_from_info=lambda info: info)
    imitation.platform = SimpleNamespace(backend_type_get=lambda: backend)
    specification = importlib.util.spec_from_file_location("viewport_shaders", SHADERS)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    with mock.patch.dict(sys.modules, {"gpu": imitation}):
        specification.loader.exec_module(module)
    return {
        "splats": module.splat_shader(),
        "mesh": module.mesh_shader(),
        "composite": module.composite_shader(module.depth_in_vertex_shader()),
    }


def declared(info: CreateInfo, stage: str) -> str:
    """The whole text of a stage for Vulkan: the declarations that Blender adds, and the shader's own text."""
    lines = ["#version 450", "#define gl_InstanceID gl_InstanceIndex"]
    lines += [f"#define {name} {value}" for name, value in info.defines.items()]
    lines += ["layout(push_constant, std430) uniform PushConstants {"]
    lines += [f"  {TYPES[kind]} {name};" for kind, name in info.constants] + ["};"]
    lines += [f"layout(binding = {slot}) uniform sampler2D {name};" for slot, _, name in info.samplers]
    passed = [member for interface in info.interfaces for member in interface.members]
    direction = "out" if stage == "vert" else "in"
    lines += [
        f"layout(location = {slot}) {interpolation} {direction} {TYPES[kind]} {name};"
        for slot, (interpolation, kind, name) in enumerate(passed)
    ]
    own, direction = (info.inputs, "in") if stage == "vert" else (info.outputs, "out")
    lines += [f"layout(location = {slot}) {direction} {TYPES[kind]} {name};" for slot, kind, name in own]
    if stage == "frag" and info.depth == "ANY":
        lines.append("layout(depth_any) out float gl_FragDepth;")
    return "\n".join([*lines, info.sources[stage]])


def translate(text: str, stage: str, folder: Path) -> tuple[int, int]:
    """Bytes of SPIR-V and lines of MSL. Raises a `RuntimeError` with a tool's reason if it refuses the text."""
    source, binary = folder / f"shader.{stage}", folder / "shader.spv"
    source.write_text(text, "utf-8")
    _run("glslangValidator", "-V", "--target-env", "vulkan1.2", str(source), "-o", str(binary))
    _run("spirv-val", "--target-env", "vulkan1.2", str(binary))
    metal = _run("spirv-cross", str(binary), "--msl", "--msl-version", "20200")
    return binary.stat().st_size, len(metal.splitlines())


def _run(*command: str) -> str:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"{command[0]}: {(ended.stdout + ended.stderr).strip()}")
    return ended.stdout


def main() -> int:
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        print(f"Programs are missing: install {' '.join(missing)}.", file=sys.stderr)
        return 1
    refused = 0
    print("| Blender | backend | shader | stage | push constants | samplers | SPIR-V | Metal |")
    print("|---|---|---|---|---|---|---|---|")
    for version, kind in (("5.0 and later", CreateInfoOfBlender5), ("4.2 to 4.5", CreateInfo)):
        for backend in ("VULKAN", "METAL"):
            for name, info in recorded(backend, kind).items():
                for stage in ("vert", "frag"):
                    with tempfile.TemporaryDirectory() as folder:
                        try:
                            size, lines = translate(declared(info, stage), stage, Path(folder))
                            result = f"{size} bytes | {lines} lines"
                        except RuntimeError as error:
                            refused += 1
                            result = f"refused: {error} | "
                    print(
                        f"| {version} | {backend} | {name} | {stage} | {info.constant_bytes()} bytes "
                        f"| {len(info.samplers)} | {result} |"
                    )
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
