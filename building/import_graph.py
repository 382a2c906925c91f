"""What the product's modules import from each other: contracts, cycles, and the picture of the rooms.

    .venv-check/bin/python -m building.import_graph contracts|cycles|picture|draw

The backend, the operators and the Blender add-on import each other relatively, as one package: that is how Blender
installs them. So the graph is built from a copy of their sources that lies under one package, `effigy`, as it does in
the extension's zip. Runs in `.venv-check`, which has grimp and import-linter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Final

from .environments import ROOT
from .extension import PACKAGES, files_to_ship

PICTURE: Final = ROOT / "docs" / "images" / "rooms.svg"
UNIVERSAL: Final = (
    "allocation",
    "assets",
    "devices",
    "errors",
    "progress",
    "storage",
    "redraw",
    "reporting",
    "threads",
)
"""Modules that any room may import; drawing their arrows would hide the others."""


@contextmanager
def packaged_sources() -> Iterator[Path]:
    """A temporary folder that holds the product's modules as one package, `effigy`."""
    with tempfile.TemporaryDirectory(prefix="effigy-imports-") as folder:
        package = Path(folder, "effigy")
        for source, inside in files_to_ship():
            if source.suffix == ".py":
                (package / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, package / inside)
        for root in (package, *(package / name for name in PACKAGES)):
            (root / "__init__.py").touch()
        yield Path(folder)


def imports() -> dict[str, set[str]]:
    """Module -> the product's modules that it imports, both named without the leading `effigy.`."""
    import grimp

    with packaged_sources() as folder:
        sys.path.insert(0, str(folder))
        try:
            graph = grimp.build_graph("effigy", cache_dir=None)
        finally:
            sys.path.remove(str(folder))
    short = {module: module.removeprefix("effigy.") for module in graph.modules if module != "effigy"}
    return {
        name: {short[other] for other in graph.find_modules_directly_imported_by(module) if other in short}
        for module, name in short.items()
    }


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of imports as a list whose first module is also its last, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib names the nodes from the imported to the importing one.
        return list(reversed(error.args[1]))
    return []


def check_contracts() -> int:
    """Run import-linter with the contracts of pyproject.toml."""
    linter = "import sys; from importlinter.cli import lint_imports_command as run; sys.exit(run())"
    with packaged_sources() as folder:
        return subprocess.run(
            [sys.executable, "-c", linter, "--no-cache", "--no-logo", str(ROOT / "pyproject.toml")],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
        ).returncode


def check_cycles() -> int:
    cycle = find_cycle(imports())
    if cycle:
        print(f"These modules import each other: {' → '.join(cycle)}")
    return int(bool(cycle))


def check_picture() -> int:
    if PICTURE.is_file() and PICTURE.read_text("utf-8") == rooms_svg(imports()):
        return 0
    print(f"{PICTURE.relative_to(ROOT)} does not show the current imports: run `python3 build.py rooms`.")
    return 1


def draw_picture() -> int:
    PICTURE.write_text(rooms_svg(imports()), "utf-8", newline="\n")
    print(f"{PICTURE.relative_to(ROOT)} drawn from the imports.")
    return 0


def room_of(module: str) -> str:
    """The folder of a module, to the depth at which the picture shows rooms: `backend.tracking.solve`."""
    parts = module.split(".")
    depth = 3 if parts[:2] == ["backend", "tracking"] else 1 if parts[0] == "operators" else 2
    return ".".join(parts[:depth])


def room_imports(graph: dict[str, set[str]]) -> Counter[tuple[str, str]]:
    """(importing room, imported room) -> number of imports; modules that every room may import are left out."""
    rooms = Counter(
        (room_of(module), room_of(other))
        for module, others in graph.items()
        for other in others
        if "." in module and "." in other and room_of(module) != room_of(other)
    )
    return Counter({pair: count for pair, count in rooms.items() if not any(map(_is_universal, pair))})


def _is_universal(room: str) -> bool:
    return room.rpartition(".")[2] in UNIVERSAL


def layers(edges: Counter[tuple[str, str]]) -> list[list[str]]:
    """Rooms in rows: a room stands right below the lowest room that imports it. Of a cycle, the rarest import is left
    out.
    """
    edges = Counter(edges)
    graph: dict[str, set[str]] = {}
    while True:
        graph = {room: set() for pair in edges for room in pair}
        for importing, imported in edges:
            graph[importing].add(imported)
        cycle = find_cycle(graph)
        if not cycle:
            break
        del edges[min(pairwise(cycle), key=lambda pair: (edges.get(pair, 9**9), pair))]
    depth: dict[str, int] = {}
    for room in reversed(list(TopologicalSorter(graph).static_order())):
        depth[room] = 1 + max((depth[other] for other in graph if room in graph[other]), default=-1)
    return [sorted(room for room in depth if depth[room] == level) for level in range(max(depth.values()) + 1)]


def without_implied(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The imports that no chain of other imports implies (the transitive reduction)."""
    return {
        (importing, imported)
        for importing, imported in edges
        if imported not in _reachable(importing, edges - {(importing, imported)})
    }


def _reachable(start: str, edges: set[tuple[str, str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        room = waiting.pop()
        new = {imported for importing, imported in edges if importing == room} - found
        found |= new
        waiting += new
    return found


def rooms_svg(graph: dict[str, set[str]]) -> str:
    """The picture of the rooms: Blender's side and the backend, with an arrow from a room to one that it imports,
    except where a chain of other arrows leads there as well.
    """
    edges = room_imports(graph)
    shapes: list[str] = []
    position: dict[str, tuple[float, float]] = {}
    left, bottom = 20.0, 0.0
    for title, packages in (("In Blender", ("operators", "blender_addon")), ("The backend", ("backend",))):
        side = Counter({pair: count for pair, count in edges.items() if pair[0].split(".")[0] in packages})
        rows = layers(side)
        width = max(len(row) for row in rows) * 192
        shapes.append(f'<text x="{left + width / 2:g}" y="28" class="title">{title}</text>')
        for level, row in enumerate(rows):
            for index, room in enumerate(row):
                position[room] = (left + (index + 0.5) * width / len(row), 64 + level * 74)
        left, bottom = left + width + 40, max(bottom, 64 + len(rows) * 74)
    for importing, imported in sorted(without_implied(set(edges))):
        (x0, y0), (x1, y1) = position[importing], position[imported]
        y0, y1 = (y0 + 17, y1 - 19) if y1 > y0 else (y0 - 17, y1 + 19)
        middle = (y0 + y1) / 2
        shapes.append(
            f'<path d="M{x0:g} {y0:g} C{x0:g} {middle:g} {x1:g} {middle:g} {x1:g} {y1:g}">'
            f"<title>{importing} → {imported}: {edges[importing, imported]}</title></path>"
        )
    for room, (x, y) in sorted(position.items()):
        shapes.append(f'<rect x="{x - 88:g}" y="{y - 17:g}" width="176" height="34" rx="6"/>')
        shapes.append(f'<text x="{x:g}" y="{y + 4:g}">{room.partition(".")[2] or room}</text>')
    style = (
        "text{font:12px sans-serif;text-anchor:middle;fill:#222}.title{font-size:16px;font-weight:bold}"
        "rect{fill:#eef3f8;stroke:#5b7a99}path{fill:none;stroke:#5b7a99;stroke-opacity:.45;marker-end:url(#head)}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left:g} {bottom:g}" font-family="sans-serif">',
            "<!-- Drawn by `python3 build.py rooms` from the imports; not to be edited. -->",
            f"<style>{style}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto">'
            '<path d="M0 0L8 4L0 8z" style="fill:#5b7a99;stroke:none;marker-end:none"/></marker></defs>',
            '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>',
            *shapes,
            "</svg>\n",
        ]
    )


ACTIONS: Final = {
    "contracts": check_contracts,
    "cycles": check_cycles,
    "picture": check_picture,
    "draw": draw_picture,
}

if __name__ == "__main__":
    sys.exit(ACTIONS[sys.argv[1]]())
