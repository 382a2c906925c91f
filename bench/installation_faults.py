"""Installs the backend under faults, and counts after which ones no backend works any more.

    python3 build.py bench installation_faults [--kills 20] [--seed 0] [--json FILE] [--out FILE]

Each try starts with version 1.0 of a tiny backend, installs version 2.0 under a fault, and has failed if

- the backend that is used afterwards is not 1.0, or 2.0 where the installation has completed,
- a program of the installation still runs two seconds later,
- or the next installation without the fault does not succeed, or does not remove what the faulty one left.

venv, pip, the installer, its processes, the package index and the full disk are real; only the packages are tiny
(`bench.package_index`). Linux; the full disk is a file system in memory that root mounts in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.package_index import PackageIndex, environments_in, make_extension, pip_uses
from blender_addon.installation.install import Installation
from blender_addon.installation.machine import Machine
from blender_addon.installation.plan import make_plan

ROOT: Final = Path(__file__).resolve().parents[1]
MACHINE: Final = Machine("Linux", (sys.version_info.major, sys.version_info.minor))
INSTALL_IN_PROCESS: Final = (
    "import sys; from pathlib import Path; from blender_addon.installation import plan; "
    "plan.TORCH_INDEX = sys.argv[2]; "
    "from bench.installation_faults import install; print(install(Path(sys.argv[1])).error)"
)
PAUSE: Final = 0.01
"""Seconds between two parts of 64 kB, so that the moments of a kill are spread over downloading too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often an installer is killed (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    parser.add_argument("--json", type=Path, help="write {row: {tried, failed}} into this file")
    parser.add_argument("--out", type=Path, help="write the table into this file as well")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, int]] = {}
    told: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="effigy-faults-") as scratch:
        installed = prepare(Path(scratch, "installed"))
        for name, fault in faults(random.Random(arguments.seed), arguments.kills, installed):
            why, sentence = one_try(installed, Path(scratch, "try"), fault)
            row = rows.setdefault(name, {"tried": 0, "failed": 0})
            row["tried"] += 1
            row["failed"] += why is not None
            told.setdefault(name, sentence)
            print(f"{name}: {why or 'a working backend'} ({sentence})", file=sys.stderr, flush=True)
    text = "\n".join(table(rows, told, arguments.seed)) + "\n"
    print(text, end="")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    if arguments.out:
        arguments.out.write_text(text, "utf-8")


Fault = Callable[[Path, PackageIndex], str]
"""Installs version 2.0 in a folder under a fault; returns what the artist reads."""


def faults(moments: random.Random, kills: int, installed: Path) -> Iterator[tuple[str, Fault]]:
    yield "network off before the download", network_off
    yield "network off during the download", breaking(1000)
    yield "network off after the download", closed_after("effigy_part_2")
    yield "connection breaks twice", breaking(2)
    yield "disk full while downloading", full_disk(1_500_000)
    yield "disk full while unpacking", full_disk(9_000_000)
    yield "index serves another file", other_file
    yield "PyTorch's index serves another build under the name", other_build
    yield "two installers at once", two_at_once
    duration = seconds_of_an_installation(installed)
    for _ in range(kills):
        yield "killed at a random moment", killed_after(moments.uniform(0, duration))


def prepare(folder: Path) -> Path:
    """Version 1.0 installed, and the extension of version 2.0 with its wheels."""
    for version in ("1.0", "2.0"):
        make_extension(folder / version, folder / "wheels", version)
    index = PackageIndex(folder / "wheels")
    with pip_uses(index):
        error = install(folder, "1.0").error
    index.close()
    if error:
        raise SystemExit(f"The installation without a fault failed: {error}")
    return folder


def one_try(installed: Path, folder: Path, fault: Fault) -> tuple[str | None, str]:
    """(Why the try has failed or None, what the artist read)."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(installed, folder, symlinks=True)
    index = PackageIndex(folder / "wheels")
    with pip_uses(index):
        sentence = fault(folder, index)
        time.sleep(2.0)
        why = None
        if running := programs_in(folder):
            why = f"{running} programs still run"
        elif (version := version_in(folder)) not in ("1.0", "2.0"):
            why = f"the backend is {version}"
        index.close()
    healthy = PackageIndex(installed / "wheels")
    with pip_uses(healthy):
        error = install(folder).error
    healthy.close()
    if error:
        why = why or f"the next installation failed: {error}"
    elif version_in(folder) != "2.0":
        why = why or "the next installation is not used"
    else:
        environments = environments_in(folder)
        left = {entry.name for entry in environments.root.iterdir()} - {"current.json", "installation.lock"}
        if left != {environments.current().name}:
            why = why or f"{sorted(left)} are left"
    return why, sentence


def network_off(folder: Path, index: PackageIndex) -> str:
    index.close()
    return told_by(install(folder))


def breaking(times: int) -> Fault:
    def fault(folder: Path, index: PackageIndex) -> str:
        index.breaks = times
        return told_by(install(folder))

    return fault


def closed_after(package: str) -> Fault:
    def fault(folder: Path, index: PackageIndex) -> str:
        index.closed_after = package
        return told_by(install(folder))

    return fault


def other_file(folder: Path, index: PackageIndex) -> str:
    index.other_bytes = True
    return told_by(install(folder))


def other_build(folder: Path, index: PackageIndex) -> str:
    """PyTorch's index has the build's name and version, but its content is another build."""
    (wheel,) = (folder / "wheels" / "cpu").glob("torch-*.whl")
    wheel.write_bytes((folder / "wheels" / "cu130" / wheel.name.replace("cpu", "cu130")).read_bytes())
    # The wheel's own metadata says another version than its file name, and pip looks at it.
    return told_by(install(folder))


def two_at_once(folder: Path, index: PackageIndex) -> str:
    index.pause = PAUSE
    first = start_installer(folder)
    while not any(path.endswith(".whl") for path, _ in index.requests):
        time.sleep(0.01)
    sentence = told_by(install(folder))
    first.communicate()
    return sentence


def killed_after(seconds: float) -> Fault:
    def fault(folder: Path, index: PackageIndex) -> str:
        index.pause = PAUSE
        installer = start_installer(folder)
        time.sleep(seconds)
        installer.send_signal(signal.SIGKILL)
        installer.communicate()
        return "nothing: the process was killed"

    return fault


def full_disk(free: int) -> Fault:
    def fault(folder: Path, index: PackageIndex) -> str:
        with small_disk(folder / "environments") as mounted:
            filling = mounted / "filling"
            filling.write_bytes(bytes(shutil.disk_usage(mounted).free - free))
            plan = make_plan(MACHINE, environments_in(folder), folder / "2.0", sys.executable)
            # The sizes in the plan would refuse this disk before the installation starts.
            installation = Installation(replace(plan, disk=0), folder / "install.log")
            installation.start()
            installation.wait()
            filling.unlink()
        return told_by(installation)

    return fault


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Puts the content of `folder` on a file system of 80 MB, and back afterwards."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)], check=True)
    try:
        shutil.copytree(aside, folder, symlinks=True, dirs_exist_ok=True)
        yield folder
        shutil.rmtree(aside)
        shutil.copytree(folder, aside, symlinks=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()
    aside.rename(folder)


def install(folder: Path, version: str = "2.0") -> Installation:
    plan = make_plan(MACHINE, environments_in(folder), folder / version, sys.executable)
    installation = Installation(plan, folder / "install.log")
    installation.start()
    installation.wait()
    return installation


def start_installer(folder: Path) -> subprocess.Popen[str]:
    """An installer in a process of its own, as another Blender has it."""
    torch_index = os.environ["PIP_INDEX_URL"].replace("/simple", "/whl")
    return subprocess.Popen(
        [sys.executable, "-c", INSTALL_IN_PROCESS, str(folder), torch_index],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def seconds_of_an_installation(installed: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="effigy-faults-") as scratch:
        folder = shutil.copytree(installed, Path(scratch, "copy"), symlinks=True)
        index = PackageIndex(folder / "wheels")
        index.pause = PAUSE
        with pip_uses(index):
            started = time.monotonic()
            start_installer(folder).communicate()
            duration = time.monotonic() - started
        index.close()
    return duration


def told_by(installation: Installation) -> str:
    return installation.error or " ".join(installation.notes)


def version_in(folder: Path) -> str:
    """What the backend that is used really imports, or why it cannot."""
    python = environments_in(folder).python()
    if python is None:
        return "gone"
    command = [str(python), "-c", "import effigy_part_0, effigy_part_2, torch; print(effigy_part_0.VERSION)"]
    ended = subprocess.run(command, capture_output=True, text=True)
    return (ended.stdout or ended.stderr).strip().splitlines()[-1]


def programs_in(folder: Path) -> int:
    """How many processes have the folder in their command line."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            count += os.fsencode(folder) + b"/" in path.read_bytes() and path.parent.name != str(os.getpid())
        except OSError:
            continue
    return count


def table(rows: dict[str, dict[str, int]], told: dict[str, str], seed: int) -> Iterator[str]:
    yield "# Installations under faults"
    yield ""
    when, machine = f"{datetime.now(UTC):%d %B %Y}", f"{platform.system()}, {os.cpu_count()} cores"
    yield f"Written by `python3 build.py bench installation_faults` (seed {seed}) on {when}:"
    yield f"{machine}, Python {platform.python_version()}. Failed: tries after which no backend worked,"
    yield "a program of the installation still ran, or the next installation did not succeed and clean up."
    yield ""
    yield "| fault | tried | failed | what the artist reads |"
    yield "|---|---|---|---|"
    for name, row in rows.items():
        # Ports and temporary folders differ from run to run.
        sentence = re.sub(r"http://127.0.0.1:\d+", "https://…", told[name])
        sentence = re.sub(r"/tmp/effigy-faults-\w+", "…", sentence)
        yield f"| {name} | {row['tried']} | {row['failed']} | {sentence} |"


if __name__ == "__main__":
    main()
