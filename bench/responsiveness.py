"""How responsive Blender's window stays while Effigy imports and trains, measured in a real window.

    python3 build.py bench responsiveness --blender PROGRAM [--json FILE]

A timer in Blender ticks every few milliseconds. In a gap between two ticks the window did not respond. Each function of
Effigy that Blender calls (timers, panels, the status bar) is timed as well, so that Effigy's share of a gap is known
apart from Blender's own, which includes drawing the window on the CPU. The exit code is 1 where Effigy takes more than
50 ms of one gap.
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
MAX_SECONDS_IN_A_GAP = 0.050


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.py bench responsiveness", description=__doc__.split("\n")[0])
    parser.add_argument("--blender", metavar="PROGRAM", help="Blender 4.2 or later (default: `blender` on the PATH)")
    parser.add_argument(
        "--frames", type=int, default=60, help="frames of the bundled clip to import (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=0.5, help="minutes of training (default: %(default)s)")
    parser.add_argument("--folder", metavar="FOLDER", help="folder for the files (default: a temporary one)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file as well")
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
    return int(any(phase["ours"] > MAX_SECONDS_IN_A_GAP for phase in figures.values()))


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
        raise BuildError("Blender did not finish: its output is above.")
    return json.loads(result.read_text("utf-8"))


def table(figures: dict[str, dict[str, float | str]]) -> str:
    lines = [
        f"{'':10}{'longest gap':>13}{'99 %':>9}{'Effigy in a gap':>17}{'of it on the CPU':>18}  Effigy's longest call"
    ]
    for name, phase in figures.items():
        lines.append(
            f"{name:10}{1e3 * phase['gap']:>10.0f} ms{1e3 * phase['gap_99']:>6.0f} ms{1e3 * phase['ours']:>14.1f} ms"
            f"{1e3 * phase['ours_cpu']:>15.1f} ms  {phase['longest']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
