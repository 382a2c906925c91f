"""How quick Blender's window stays while Effigy imports and trains, in a real window.

    python3 build.py bench responsiveness --blender PROGRAM [--json FILE]

A timer of Blender's looks every few milliseconds; what is between two looks is a time in which the window answered
nobody. Each of Effigy's own functions that Blender calls (timers, panels, the status bar) is timed as well, so that its
share of such a gap is told apart from Blender's, which draws the window on this machine's processor. More than 50 ms of
ours in one gap is too much: exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from building.environments import BuildError
from building.extension import build_extension
from building.window import run_in_window, window_command

SCRIPT = Path(__file__).with_name("responsiveness_in_blender.py")
BOUND = 0.050
"""Seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.py bench responsiveness", description=__doc__.split("\n")[0])
    parser.add_argument("--blender", metavar="PROGRAM", help="Blender 4.2 or later (default: `blender` on the PATH)")
    parser.add_argument("--frames", type=int, default=60, help="how much of the bundled clip is imported (%(default)s)")
    parser.add_argument("--minutes", type=float, default=0.5, help="how long is trained (%(default)s)")
    parser.add_argument("--folder", metavar="FOLDER", help="where the files go (default: a temporary one)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    arguments = parser.parse_args()
    try:
        command = window_command(arguments.blender)
        with tempfile.TemporaryDirectory(prefix="effigy-window-", dir=arguments.folder) as folder:
            figures = measure(command, Path(folder), arguments.frames, arguments.minutes)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(figures))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1), "utf-8")
    return int(any(phase["ours"] > BOUND for phase in figures.values()))


def measure(command: list[str], folder: Path, frames: int, minutes: float) -> dict[str, dict[str, float | str]]:
    order, result = folder / "order.json", folder / "figures.json"
    order.write_text(
        json.dumps(
            {
                "package": str(build_extension(folder)),
                "frames": frames,
                "minutes": minutes,
                "folder": str(folder),
                "result": str(result),
            }
        ),
        "utf-8",
    )
    run_in_window(command, SCRIPT, order, folder / "settings")
    if not result.is_file():
        raise BuildError("Blender did not get through: what it said is above.")
    return json.loads(result.read_text("utf-8"))


def table(figures: dict[str, dict[str, float | str]]) -> str:
    lines = [f"{'':10}{'longest gap':>13}{'99 %':>9}{'ours in a gap':>15}{'on the processor':>18}  longest of ours"]
    for name, phase in figures.items():
        lines.append(
            f"{name:10}{1e3 * phase['gap']:>10.0f} ms{1e3 * phase['gap_99']:>6.0f} ms{1e3 * phase['ours']:>12.1f} ms"
            f"{1e3 * phase['ours_cpu']:>15.1f} ms  {phase['longest']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
