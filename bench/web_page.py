"""How often a web page with an avatar is drawn again, in headless Chromium without a graphics card.

    python -m bench.web_page PAGE.html [--seconds 5]

While the camera goes around the head, and while a slider moves: redraws a second, the resolution to which the page came
by itself, and processor time of a redraw, all of Chromium's processes together. It is also drawn by WebGL, which
software then stands in for (SwiftShader).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "backend"))

from chromium import Page

MOVES = {"orbit": "null", "slider": "'jawOpen'"}


def processor_seconds(parent: int) -> float:
    """Of all processes that a process has started, and theirs."""
    children: dict[int, list[tuple[int, int]]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append((int(status.parent.name), int(fields[11]) + int(fields[12])))
    total, waiting = 0, [parent]
    while waiting:
        for process, ticks in children.get(waiting.pop(), []):
            total += ticks
            waiting.append(process)
    return total / os.sysconf("SC_CLK_TCK")


def rows(page: Page, seconds: float) -> list[str]:
    found = []
    for move, slider in MOVES.items():
        # The page finds its resolution, and the browser compiles.
        page.run(f"effigy.measure(2, {slider})")
        before = processor_seconds(page.process)
        result = page.run(f"effigy.measure({seconds}, {slider})")
        spent = 1000 * (processor_seconds(page.process) - before) / (seconds * result["rate"])
        painter = "WebGL" if result["webgl"] else "processor"
        found.append(
            f"| {painter} | {move} | {result['rate']:.0f} | {result['width']} × {result['height']} | {spent:.0f} |"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    print("| drawn by | what moves | redraws a second | resolution | processor ms |\n|---|---|--:|--:|--:|")
    for suffix in ("", "#webgl"):
        url = arguments.page.resolve().as_uri() + suffix
        with tempfile.TemporaryDirectory() as folder, Page(Path(folder), url) as page:
            page.run("effigy.ready")
            print(*rows(page, arguments.seconds), sep="\n", flush=True)


if __name__ == "__main__":
    main()
