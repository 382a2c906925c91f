"""Coverage-guided fuzzing of every loader: inputs that reach new lines of the backend are kept and changed further.

Atheris (https://github.com/google/atheris) steers; it is installed outside of the backend's environment by
`install_packages` (Python 3.11 and later on Linux). Where it is missing, as in the tests, inputs are drawn by
`_mutations` alone, and the table says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from bench.fault_rows._fuzz import Found, fuzz_unguided
from bench.fault_rows._loaders import loaders, make_samples
from bench.fault_rows.outcome import Outcome, Place

TITLE: Final = "fuzzing of every loader (seconds each)"
ASKED: Final = "0 other exceptions than ours, 0 crashes, 0 hangs over 30 s"
FULL: Final = 600
SHORT: Final = 1
UNGUIDED_INPUTS: Final = 150
"""For each loader in place of each second, where Atheris is missing: counted, so that every machine tries the same."""

_ROOT: Final = Path(__file__).resolve().parents[2]


def packages() -> Path:
    """The folder for the packages of requirements/faults.lock."""
    lock = (_ROOT / "requirements" / "faults.lock").read_bytes()
    return _ROOT / ".cache" / "faults" / f"packages-{hashlib.sha256(lock).hexdigest()[:12]}"


def prepare() -> None:
    """Install Atheris, outside of the sandbox."""
    from building.environments import BACKEND, REQUIREMENTS, Status, pip

    folder = packages()
    if not folder.is_dir():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        with Status("installing Atheris") as status:
            arguments = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(unfinished)]
            pip(BACKEND, status, "install", [*arguments, "-r", str(REQUIREMENTS / "faults.lock")])
        unfinished.rename(folder)


def run(place: Place, seed: int, count: int) -> Outcome:
    os.environ |= {"EFFIGY_CACHE": str(place.home / "cache"), "EFFIGY_USER": str(place.scratch / "user")}
    outcome, guided = Outcome(), packages().is_dir() and count > SHORT
    make_samples(place.scratch / "samples")
    tries = Counter[str]()
    for number, loader in enumerate(loaders()):
        folder = place.scratch / f"loader-{number}"
        shutil.copytree(place.scratch / "samples", folder)
        if guided:
            found, ended = _fuzz_guided(folder, loader.name, seed, count)
        else:
            found, ended = fuzz_unguided(loader, folder, seed, UNGUIDED_INPUTS * count), None
        tries[loader.name] = found.tries
        for failure in found.failures:
            outcome.failures.append(f"{loader.name}: {failure}")
        outcome.record(loader.name, ended or (None if found.tries else "no input was tried"))
        line = f"{loader.name}: {found.tries} inputs, {found.kept} kept, {len(found.failures)} failures"
        print(line, *found.failures, *filter(None, [ended]), sep="\n  ", file=sys.stderr, flush=True)
        shutil.rmtree(folder)
    least = min(tries, key=tries.__getitem__)
    outcome.figures = {
        "by": "Atheris" if guided else "seeded mutations, without Atheris",
        "inputs": f"{sum(tries.values()):,}",
        "fewest": f"{tries[least]:,} ({least})",
    }
    return outcome


def _fuzz_guided(folder: Path, name: str, seed: int, seconds: int) -> tuple[Found, str | None]:
    """What a process found that fuzzed one loader, and how it ended if not by itself."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(packages()), str(_ROOT)))}
    command = [sys.executable, "-m", "bench.fault_rows._fuzz", str(folder), name, str(seed), str(seconds)]
    log = folder / "log"
    with log.open("wb") as output:
        code = subprocess.run(command, env=environment, stdout=output, stderr=output).returncode
    try:
        found = Found(**json.loads((folder / "found.json").read_text("utf-8")))
    except FileNotFoundError:
        found = Found()
    last = " / ".join(log.read_text("utf-8", "replace").strip().splitlines()[-3:])
    return found, None if code == 0 else f"the process ended with code {code}: {last[:600]}"
