"""Prints what *Install Backend* does on each kind of machine, as a Markdown table.

    python3 build.py bench installation_plans [--out FILE]

The sizes come from requirements/wheels.json, which `python3 build.py wheels` measures on the package index.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from blender_addon.installation.gpu import Gpu
from blender_addon.installation.machine import Machine
from blender_addon.installation.place import Environments
from blender_addon.installation.plan import PIP_LIST, Plan, Step, make_plan

ROOT: Final = Path(__file__).resolve().parents[1]
PYTHONS: Final = ((3, 11), (3, 13))
_4090: Final = Gpu("NVIDIA GeForce RTX 4090", (580, 105, 8), (8, 9), (13, 0))
MACHINES: Final = {
    "Windows, RTX 4070, driver 552": Machine(
        "Windows", (3, 11), Gpu("NVIDIA GeForce RTX 4070", (552, 44), (8, 9), (12, 4))
    ),
    "Windows, RTX 5090, driver 570": Machine(
        "Windows", (3, 11), Gpu("NVIDIA GeForce RTX 5090", (572, 16), (12, 0), (12, 8))
    ),
    "Windows, RTX 4060, driver 610": Machine(
        "Windows", (3, 11), Gpu("NVIDIA GeForce RTX 4060", (610, 43), (8, 9), (13, 3))
    ),
    "Windows, GTX 1080, driver 581": Machine(
        "Windows", (3, 11), Gpu("NVIDIA GeForce GTX 1080", (581, 15), (6, 1), (13, 0))
    ),
    "Windows, no GPU": Machine("Windows", (3, 11)),
    "Linux, RTX 4090, without nvcc": Machine("Linux", (3, 11), _4090),
    "Linux, RTX 4090, with nvcc": Machine("Linux", (3, 11), _4090, compiler=True),
    "Linux, no GPU": Machine("Linux", (3, 11)),
    "macOS 13, Apple silicon": Machine("Darwin", (3, 11), processor="arm64", version=(13, 6)),
    "macOS 14, Apple silicon": Machine("Darwin", (3, 11), processor="arm64", version=(14, 5)),
    "macOS 15, Apple silicon": Machine("Darwin", (3, 11), processor="arm64", version=(15, 1)),
    "macOS 15, Intel": Machine("Darwin", (3, 11), processor="x86_64", version=(15, 1)),
}


def plan_on(machine: Machine) -> Plan:
    """The plan for a user whose name has 20 characters."""
    user, below = "u" * 20, "5.0/extensions/.user/user_default/effigy/environments"
    root = {
        "Windows": f"C:\\Users\\{user}\\AppData\\Local\\Effigy\\5.0",
        "Darwin": f"/Users/{user}/Library/Application Support/Blender/{below}",
    }.get(machine.system, f"/home/{user}/.config/blender/{below}")
    return make_plan(machine, Environments(Path(root), Path(root, "former")), ROOT, "python3")


def packages_of(step: Step) -> str:
    """What a step installs, and from where: a list with hashes from the package index, or one exact build."""
    lists = [Path(after).name for before, after in zip(step.command, step.command[1:], strict=False) if before == "-r"]
    lists = [name for name in lists if name != PIP_LIST]
    if lists:
        return " + ".join(lists) + (" (may fail)" if step.optional else "")
    return f"{step.command[-1]} from {step.command[step.command.index('--index-url') + 1]}"


def rows() -> Iterator[tuple[str, ...]]:
    for name, machine in MACHINES.items():
        for python in PYTHONS:
            plan = plan_on(replace(machine, python=python))
            packages = "<br>".join(packages_of(step) for step in plan.steps if "install" in step.command)
            said = " ".join(plan.messages).replace(str(plan.environments.root), "…")
            yield (
                name,
                "{}.{}".format(*python),
                packages or "nothing",
                f"{plan.download:,}",
                f"{plan.disk:,}",
                said,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the table into this file as well")
    arguments = parser.parse_args()
    lines = [
        "# What Install Backend does on each kind of machine",
        "",
        "Written by `python3 build.py bench installation_plans`. Lists come from the package index, pinned by hash.",
        "Bytes to download, and the most bytes on disk during the installation. pip itself is part of the extension.",
        "",
        "| machine | Python | packages | download | disk | what the artist reads |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows()),
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
