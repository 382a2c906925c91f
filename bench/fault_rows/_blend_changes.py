"""The changes that `blend_properties` makes to the properties of a .blend, and the folders in which it makes them.

A change gets the draw, the armature of a rig and the artist's own folder, to which nothing may be written; it returns a
few words about what it did. Needs bpy, with the extension enabled.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
FILES: Final = ROOT / "tests" / "files_of_0_1"
PACKAGE: Final = "bl_ext.user_default.effigy"


def lay_out(project: Path, outside: Path) -> None:
    """A downloaded folder, and beside it one of the artist's own."""
    project.mkdir(parents=True)
    for name in ("person.blend", "person.effigy", "stopped.effigy.checkpoint"):
        shutil.copyfile(FILES / name, project / name)
    shutil.copytree(FILES / "person.capture", project / "person.capture")
    outside.mkdir()
    for name in ("startup.py", "mine.effigy"):
        shutil.copyfile(FILES / "person.effigy", outside / name)
        # A training that could be resumed.
        shutil.copyfile(FILES / "stopped.effigy.checkpoint", outside / f"{name}.checkpoint")
    shutil.copytree(FILES / "person.capture", outside / "mine.capture")
    os.mkfifo(outside / "pipe")
    (outside / "pipe.effigy").symlink_to(outside / "pipe")
    (outside / "zero.effigy").symlink_to("/dev/zero")
    (outside / "loop").symlink_to(outside / "loop")
    (project / "link").symlink_to(outside)


def change(draw: random.Random, project: Path, outside: Path) -> list[str]:
    """Opens the .blend of Effigy 0.1 and changes one to four properties; returns what was changed."""
    import bpy

    bpy.ops.wm.open_mainfile(filepath=str(project / "person.blend"))
    paths = importlib.import_module(f"{PACKAGE}.blender_addon.trusted_paths")
    # Nothing was used on this computer before.
    paths._trusted.keys.clear()
    paths._trusted.stamp = None
    paths._file().unlink(missing_ok=True)
    rigs = [obj for obj in bpy.data.objects if obj.type == "ARMATURE"]
    changed = []
    with paths.suspended():
        for _ in range(draw.randint(1, 4)):
            rig = draw.choice(rigs)
            kind, change = draw.choice(_CHANGES)
            changed.append(f"{kind} {change(draw, rig, outside)!r}"[:80])
    return changed


def _some_path(draw: random.Random, outside: Path) -> str:
    name = draw.choice(
        ("startup.py", "mine.effigy", "new.effigy", "pipe.effigy", "zero.effigy", "loop", "mine.capture", "", "a\x01b")
    )
    return draw.choice(
        (
            str(outside / name),
            f"//../own/{name}",
            f"//link/{name}",
            f"//..\\own\\{name}",
            f"///{outside}/{name}",
            f"\\\\server\\share\\{name}",
            f"//\\\\server\\share\\{name}",
            f"smb://server/{name}",
            f"/dev/{draw.choice(('zero', 'stdin', 'tty'))}",
            "/proc/self/mem",
            f"{'x' * draw.choice((300, 5_000, 2_000_000))}{name}",
            "//" + "../" * draw.choice((1, 50, 3_000)) + name,
            f"//half \udcff {name}",
            "",
        )
    )


def _change_path(draw: random.Random, rig: Any, outside: Path) -> str:
    text = _some_path(draw, outside)
    setattr(rig.effigy, draw.choice(("avatar", "capture")), text)
    return text


def _change_training(draw: random.Random, rig: Any, outside: Path) -> str:
    settings: Any = {"capture": "//person.capture", "avatar": "//stopped.effigy", "preset": "draft", "device": "cpu"}
    odd = (None, 7, -1e400, True, [], {}, "x" * 100_000, "\ud800", "\0", _some_path(draw, outside))
    for _ in range(draw.randint(1, 3)):
        settings[draw.choice((*settings, "size", "minutes", "more"))] = draw.choice(odd)
    text = json.dumps(settings)
    text = draw.choice((text, text, text, text[: draw.randint(0, 60)], "[" * 30_000, "{}", "7", "NaN", '"x"', "\x7f"))
    rig.effigy.training = text
    return text


def _change_resumable(draw: random.Random, rig: Any, outside: Path) -> str:
    """A stopped training with checkpoints that are there."""
    inside = ("//person.capture", "//stopped.effigy")
    folder = draw.choice(("//../own", "//link", str(outside), "//./../download/../own"))
    capture, avatar = draw.choice(
        (inside, (inside[0], f"{folder}/mine.effigy"), (inside[0], f"{folder}/startup.py"))
        + ((f"{folder}/mine.capture", f"{folder}/mine.effigy"),)
    )
    rig.effigy.training = json.dumps({"capture": capture, "avatar": avatar, "preset": "draft", "device": "cpu"})
    return f"{capture} {avatar}"


def _change_rig(draw: random.Random, rig: Any, outside: Path) -> str:
    stored = rig["effigy_rig"]
    name = draw.choice(sorted(stored.keys()))
    value = draw.choice((None, 0, -7, 1e38, "", "a\nb\nc", "y" * 200_000, [0.0], [float("nan")] * 15, {"a": [1]}))
    if value is None:
        del stored[name]
    else:
        stored[name] = value
    return name


def _change_number(draw: random.Random, rig: Any, outside: Path) -> str:
    import bpy

    nan, scene = float("nan"), bpy.context.scene
    name, change = draw.choice(
        (
            ("location", lambda: setattr(rig, "location", (nan, 0, 0))),
            ("scale", lambda: setattr(rig, "scale", draw.choice(((0, 0, 0), (1e30, 1, 1), (float("inf"),) * 3)))),
            ("bone", lambda: setattr(rig.pose.bones[0], "location", (nan,) * 3)),
            ("minutes", lambda: setattr(rig.effigy, "minutes", draw.choice((nan, float("inf"), 1e-30)))),
            ("size", lambda: setattr(rig.effigy, "size", draw.choice((1, 2048)))),
            ("limit", lambda: setattr(scene.effigy, "bake_limit", 2**31 - 1)),
            ("range", lambda: setattr(scene, "frame_end", -5 if draw.random() < 0.5 else scene.frame_start)),
            ("splat size", lambda: setattr(rig.effigy_view, "scale", nan)),
        )
    )
    change()
    return name


def _change_packed(draw: random.Random, rig: Any, outside: Path) -> str:
    import bpy

    text = bpy.data.texts.new(draw.choice(("../own/startup.py", "C:\\new", "CON", ".", "x" * 60, "person.effigy")))
    good = next((other for other in bpy.data.texts if len(other.lines) > 1), None)
    body = good.as_string() if good is not None else ""
    text.from_string(
        draw.choice((body, body[:-100], "", "aW1wb3J0IG9z", "no base64 at all", ("A" * 4096 + "\n") * 3_000))
    )
    rig.effigy.packed = text
    return text.name


def _change_structure(draw: random.Random, rig: Any, outside: Path) -> str:
    import bpy

    mesh = next(child for child in rig.children if child.type == "MESH")
    blocks = mesh.data.shape_keys.key_blocks
    name, change = draw.choice(
        (
            ("renamed shape key", lambda: setattr(blocks[draw.randrange(1, 50)], "name", "z" * 60)),
            ("no shape keys", mesh.shape_key_clear),
            ("other mesh", lambda: setattr(mesh, "data", bpy.data.meshes.new("other"))),
            ("no mesh", lambda: bpy.data.objects.remove(mesh)),
            ("no parent", lambda: setattr(mesh, "parent", None)),
            ("part", lambda: mesh["effigy_rig"].__setitem__("part", draw.choice(("armature", 5, [1.0])))),
            ("no group", lambda: rig.__setitem__("effigy_rig", draw.choice(("text", 7, [1.0, 2.0])))),
            ("placement", lambda: rig.__setitem__("effigy_shot", draw.choice((7, {"stage": [1.0]}, {"a": 1})))),
            ("pass", lambda: bpy.context.scene.__setitem__("effigy_pass_of", draw.choice((7, "x", rig)))),
            ("bones", lambda: [bone.__setitem__("effigy_joint", "jaw") for bone in rig.data.bones]),
        )
    )
    change()
    return name


_CHANGES: Final = (
    ("path", _change_path),
    ("path", _change_path),
    ("training", _change_training),
    ("training", _change_training),
    ("resumable training", _change_resumable),
    ("rig", _change_rig),
    ("number", _change_number),
    ("packed", _change_packed),
    ("structure", _change_structure),
)
