"""The tries of `blend_properties`, inside Blender: python -m bench.fault_rows._blend_tries FOLDER SEED FIRST COUNT ZIP.

A line is added to FOLDER/results.jsonl for each try.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ._blend_changes import FILES, PACKAGE, ROOT, change, lay_out

LONGEST_STEP: Final = 30.0
SUFFICES: Final = 25
"""Characters of a sentence."""
_ARRAYS: Final = re.compile(r"/effigy-arrays-\w+$|^\d+-\d+$")
"""The extension's folder for a worker's arrays, and a file in it: an answer of the try before may still arrive."""


def main() -> None:
    scratch, seed, first, count, package = Path(sys.argv[1]), *map(int, sys.argv[2:5]), Path(sys.argv[5])
    os.environ["EFFIGY_USER"] = str(scratch / "effigy user")
    from building.in_blender import installed_extension

    with installed_extension(package):
        session = importlib.import_module(f"{PACKAGE}.blender_addon.worker.session")
        # With the head model of the avatar, it can be drawn.
        session.client().call("head.remember", {"file": str(FILES / "small_head.npz")}, timeout=120)
        tries = _Tries(scratch)
        tries.warm_up()
        for index in range(first, count):
            row = tries.run(random.Random(f"{seed} {index}"), index)
            with open(scratch / "results.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


class _Tries:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.seconds = 0.0
        """Of the longest step of the present try."""
        self._slowest = self._doing = ""
        self.log = scratch / "blender-output"
        # The row reads it; what is printed during a try goes elsewhere.
        self._errors = os.fdopen(os.dup(2), "w")

    def warm_up(self) -> None:
        """Renders the unchanged .blend once, so that no try waits for kernels to be compiled."""
        import bpy

        lay_out(self.scratch / "warm-up" / "download", self.scratch / "warm-up" / "own")
        with _output_in(self.log):
            bpy.ops.wm.open_mainfile(filepath=str(self.scratch / "warm-up" / "download" / "person.blend"))
            bpy.ops.render.render()

    def run(self, draw: random.Random, index: int) -> dict[str, Any]:
        folder = self.scratch / f"try-{index}"
        project, self.outside = folder / "download", folder / "own"
        lay_out(project, self.outside)
        before, self.seconds = _contents(self.outside), 0.0
        with _output_in(self.log) as output:
            changes = ", ".join(self._step("change", lambda: change(draw, project, self.outside)))
            self.seconds = 0.0
            try:
                problem = self._use(project / "person.blend")
            except Exception as error:
                problem = f"{type(error).__name__} during {self._doing}: {error}"
            printed = output()
        if problem is None and "Traceback (most recent call last)" in printed:
            problem = "a traceback was printed: " + printed[printed.index("Traceback") :][-500:]
        if problem is None and _contents(self.outside) != before:
            problem = "a file outside the folder of the .blend was changed"
        if problem is None and self.seconds > LONGEST_STEP:
            problem = f"{self._slowest} took {self.seconds:.0f} s"
        shutil.rmtree(folder, ignore_errors=True)
        return {"changes": f"try {index}: {changes}"[:300], "failure": problem, "seconds": round(self.seconds, 2)}

    def _use(self, blend: Path) -> str | None:
        """What an artist does with the .blend; returns what went wrong."""
        import bpy

        from ._file_access import recorded
        from ._unasked import run as look

        self._step("save", lambda: bpy.ops.wm.save_as_mainfile(filepath=str(blend)))
        with recorded() as access:
            self._step("open", lambda: bpy.ops.wm.open_mainfile(filepath=str(blend)))
            self._step("draw", look)
        # The .blend itself was just read, and the extension notes when it was saved.
        reached = [*access.outside(*_own_folders(), blend), *access.started, *access.written]
        if reached := [path for path in reached if not _ARRAYS.search(path)]:
            return f"without a click it reached for {', '.join(reached[:3])}"[:400]
        for rig in [obj for obj in bpy.data.objects if obj.type == "ARMATURE"]:
            bpy.context.view_layer.objects.active = rig
            for name, call in self._operators(blend):
                if problem := self._click(name, call):
                    return problem
            # The second rig is used with paths that are known here.
            if problem := self._click("look for its files", bpy.ops.effigy.look_for_files):
                return problem
            self._step("draw", look)
        self._step("save", lambda: bpy.ops.wm.save_as_mainfile(filepath=str(blend.with_name("saved.blend"))))
        return None

    def _operators(self, blend: Path) -> list[tuple[str, Callable[[], object]]]:
        import bpy

        ops = bpy.ops.effigy
        bpy.context.scene.render.filepath = str(blend.parent / "picture.png")
        return [
            ("render", lambda: bpy.ops.render.render(write_still=True)),
            ("resume", self._resume),
            ("unpack", ops.unpack_avatar),
            ("pack", ops.pack_avatar),
            ("refined track", lambda: ops.take_refined_track() if ops.take_refined_track.poll() else None),
            ("export", lambda: ops.export_splats(filepath=str(blend.parent / "splats.ply"))),
            ("bake", ops.bake_playback),
            ("reset", ops.reset_expression),
            ("key", ops.key_all),
            ("composite", ops.set_up_composite),
        ]

    def _resume(self) -> None:
        """Starts the stopped training, if it would start, and stops it."""
        import bpy

        active, training, tasks = (
            importlib.import_module(f"{PACKAGE}.blender_addon.{name}") for name in ("active", "training", "tasks")
        )
        task = training.resume(active.need_rig(bpy.context))
        task.cancel()
        tasks.wait(task, LONGEST_STEP)
        for name in ("capture", "avatar"):
            if Path(task.params[name]).resolve().is_relative_to(self.outside.resolve()):
                raise AssertionError(f"the training would have written {task.params[name]}")

    def _click(self, name: str, call: Callable[[], object]) -> str | None:
        """A sentence is what is asked of anything that does not work."""
        errors = importlib.import_module(f"{PACKAGE}.blender_addon.errors")
        try:
            self._step(name, call)
        except errors.EffigyError as error:
            sentence = str(error)
        except RuntimeError as error:
            # An operator's report, or a `poll` that is false.
            sentence = str(error)
        else:
            return None
        if "A defect in Effigy" in sentence or len(sentence) < SUFFICES or len(sentence) > 20_000:
            return f"{name} gave no sentence: {sentence[:300]}"
        return None

    def _step(self, name: str, call: Callable[[], Any]) -> Any:
        self._doing = name
        began = time.monotonic()
        # A step that hangs ends this process, and says where.
        faulthandler.dump_traceback_later(1.5 * LONGEST_STEP, exit=True, file=self._errors)
        try:
            return call()
        finally:
            faulthandler.cancel_dump_traceback_later()
            if time.monotonic() - began > self.seconds:
                self.seconds, self._slowest = time.monotonic() - began, name


def _contents(folder: Path) -> dict[str, str]:
    """What is in a folder: a hash of each file, the target of each link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder or pipe"
    return found


def _own_folders() -> tuple[Path, ...]:
    """Where Python, Blender and the extension keep what belongs to them."""
    import bpy

    return (
        Path(sys.prefix),
        Path(sys.base_prefix),
        Path(bpy.__file__).parent,
        Path(bpy.utils.resource_path("USER")),
        Path(os.environ["BLENDER_USER_RESOURCES"]),
        ROOT / "bench",
        ROOT / "building",
    )


@contextmanager
def _output_in(path: Path) -> Iterator[Callable[[], str]]:
    """Sends everything that this process prints, Blender's own lines too, into a file, and gives a function that reads
    the file.
    """

    def read() -> str:
        sys.stdout.flush()
        sys.stderr.flush()
        return path.read_text("utf-8", "replace")

    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(file, number)
        yield read
        read()
    finally:
        os.close(file)
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)


if __name__ == "__main__":
    main()
