"""Two Blenders of one user work on the same files: the second is told, and nothing is lost."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.fault_rows._blender import FILES, add_rig, blender, copied_avatars, part, stage
from bench.fault_rows._deeds import do
from bench.fault_rows.outcome import Outcome, Place
from bench.fault_sandbox import ROOT

TITLE: Final = "two Blenders on one backend: one .blend, one training, one capture, bakes and packed avatars at once"
ASKED: Final = "the second is told; nothing lost"
FULL: Final = 24
SHORT: Final = 6
NEEDS_BLENDER: Final = True


@dataclass
class Other:
    """The second Blender, a process that does one deed after the other."""

    process: subprocess.Popen[str]

    def start(self, *deed: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(deed) + "\n")
        self.process.stdin.flush()

    def told(self) -> str:
        """What the deed that was started has told its artist."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the second Blender ended with exit code {self.process.wait()}")
        return json.loads(line)

    def do(self, *deed: Any) -> str:
        self.start(*deed)
        return self.told()


def run(place: Place, seed: int, count: int) -> Outcome:
    with blender(place.scratch):
        return _run(place, random.Random(seed), count)


def _run(place: Place, draw: random.Random, count: int) -> Outcome:
    outcome = Outcome()
    tries: tuple[Callable[[Path, Other, random.Random], str | None], ...] = (
        _same_blend,
        _same_training,
        _same_capture,
        _bakes,
        _unpacking,
        _packed,
    )
    with _second_blender() as other:
        for number in range(count):
            attempt = tries[number % len(tries)]
            folder = _project(place.scratch / f"project_{number}", packed=attempt in (_unpacking, _packed))
            do("open_file", str(folder / "shot.blend"))
            other.do("open_file", str(folder / "shot.blend"))
            name = (attempt.__doc__ or "").rstrip(".")
            failure = attempt(folder, other, draw)
            outcome.record(name, failure)
            print(f"{name}: {failure or 'as asked'}", file=sys.stderr, flush=True)
    return outcome


@contextmanager
def _second_blender() -> Iterator[Other]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.fault_rows._deeds"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdout.readline()
        yield Other(process)
        process.stdin.close()
        process.wait(60)
    finally:
        process.kill()
        process.wait()


def _project(folder: Path, *, packed: bool) -> Path:
    """A folder with a capture, an avatar, and a .blend of a rig that has both."""
    import bpy

    avatars = copied_avatars(folder)
    shutil.copytree(FILES / "person.capture", folder / "person.capture")
    bpy.ops.effigy.choose_head(filepath=str(folder / "small_head.npz"))
    bpy.ops.wm.read_homefile(use_empty=True)
    stage(64)
    rig = add_rig(avatars["person"])
    rig.armature.effigy.capture = str(folder / "person.capture")
    if packed:
        bpy.ops.effigy.pack_avatar()
        rig.armature.effigy.packed.name = "packed.effigy"
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "shot.blend"))
    return folder


def _same_blend(folder: Path, other: Other, draw: random.Random) -> str | None:
    """Both save the same .blend."""
    first, second = round(draw.uniform(0.1, 0.4), 3), round(draw.uniform(0.5, 0.9), 3)
    if told := do("save", first):
        return f"the first to save was told {told!r}"
    told = other.do("save", second)
    if "saved by another Blender" not in told:
        return f"the second was told {told!r}"
    values = set()
    for path in folder.glob("*.blend"):
        do("open_file", str(path))
        part("avatars").avatar_path(_rig().armature)
        values.add(round(_rig().key_blocks["jawOpen"].value, 3))
    return None if values == {first, second} else f"of the two values {first} and {second} there are {values}"


def _same_training(folder: Path, other: Other, draw: random.Random) -> str | None:
    """Both train an avatar on the same capture."""
    if told := do("train", "running"):
        return f"the first could not train: {told}"
    second, first = other.do("train", "ended"), do("finish")
    made = [path for path in folder.glob("person*.effigy") if path.name != "person.effigy"]
    if first:
        return f"the first was told {first!r}"
    for path in made:
        part("worker.session").client().call("avatar.open", {"path": path})
    if len(made) == 1 and not second.startswith("failed: "):
        return f"the second was told {second!r}, and there is one avatar"
    return None if 1 <= len(made) <= 2 else f"there are {len(made)} avatars"


def _same_capture(folder: Path, other: Other, draw: random.Random) -> str | None:
    """Both import a video into the same capture."""
    video, capture = str(ROOT / "assets" / "demo.mp4"), str(folder / "clip.capture")
    if told := do("import_video", video, capture, "running"):
        return f"the first could not import: {told}"
    second, first = other.do("import_video", video, capture, "ended"), do("finish")
    if first:
        return f"the first was told {first!r}"
    track = part("worker.session").client().call("track.read", {"path": f"{capture}/track.npz"})
    if len(track["expression"]) != 3:
        return f"the track has {len(track['expression'])} frames instead of 3"
    # Told nothing, the second began when the first had ended, and made the whole capture again.
    return None if not second or "being written" in second else f"the second was told {second!r}"


def _bakes(folder: Path, other: Other, draw: random.Random) -> str | None:
    """Both bake the same rig to the disk."""
    other.start("bake")
    first, second = do("bake"), other.told()
    return first or second or None


def _unpacking(folder: Path, other: Other, draw: random.Random) -> str | None:
    """Both unpack the same avatar."""
    other.start("unpack")
    paths = {Path(do("unpack")), Path(other.told())}
    whole = (folder / "person.effigy").read_bytes()
    for path in paths:
        if not path.is_file() or path.read_bytes() != whole:
            return f"{path} is not the avatar"
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return f"temporary files are left: {left}" if left else None


def _packed(folder: Path, other: Other, draw: random.Random) -> str | None:
    """Both pose the same packed avatar for the first time."""
    unpacked = part("preferences").user_folder("unpacked")
    for path in unpacked.iterdir():
        path.unlink()
    other.start("pose")
    first, second = do("pose"), other.told()
    whole, found = (folder / "person.effigy").read_bytes(), [path.read_bytes() for path in unpacked.iterdir()]
    return first or second or (None if found == [whole] else f"{len(found)} files are unpacked")


def _rig() -> Any:
    import bpy

    return next(iter(part("rig.rig_properties").find_rigs(bpy.context.scene.objects)))
