"""Whether the guide's pictures show the current words of the panels: `python -m building.pictures`.

`docs/pictures/shown.json` holds, for each picture, a digest of the words in the files of the panels that it shows, as
they were when the picture was taken. A word is any text in the code that is no docstring, so that names, labels,
descriptions and icons count, and formatting and comments do not.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
SHOWN: Final = ROOT / "docs" / "pictures" / "shown.json"
_PANELS: Final = "blender_addon/panels"
_TAB: Final = (
    f"{_PANELS}/import_panel.py",
    f"{_PANELS}/fit_panel.py",
    f"{_PANELS}/train_panel.py",
    f"{_PANELS}/sliders_panel.py",
    "blender_addon/training_choices.py",
)
PICTURES: Final[dict[str, tuple[str, ...]]] = {
    "preferences": (f"{_PANELS}/preferences_page.py", "backend/service/doctor.py"),
    "import_video": ("operators/import_video.py", "blender_addon/scene_set_up.py"),
    "rig": (*_TAB, f"{_PANELS}/jobs_panel.py"),
    "sliders": (f"{_PANELS}/sliders_panel.py", f"{_PANELS}/render_panel.py"),
    "training": (*_TAB, f"{_PANELS}/jobs_panel.py", "backend/service/job_steps.py"),
    "lip_sync": ("operators/lip_sync.py",),
    "clean_up": (f"{_PANELS}/performance_panel.py", "operators/simplify_performance.py"),
    "eyes_and_life": (f"{_PANELS}/performance_panel.py",),
    "live": (f"{_PANELS}/live_panel.py", "blender_addon/live/settings.py"),
    "match_plate": (f"{_PANELS}/view_panel.py",),
    "textures": (f"{_PANELS}/playback_panel.py",),
    "playback": (f"{_PANELS}/playback_panel.py",),
    "face_controls": (f"{_PANELS}/sliders_panel.py",),
    "render": (),
    "composite": (),
}
"""A picture that `python3 build.py docs` takes -> the files whose words it shows."""


def words_of(source: str) -> list[str]:
    """All texts in a Python file but its docstrings, in order."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                docstrings.add(id(statement.value))
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def digest(root: Path, files: Iterable[str]) -> str:
    """Of the words in these files."""
    sha = hashlib.sha256()
    for name in files:
        sha.update(json.dumps(words_of((root / name).read_text("utf-8"))).encode())
    return sha.hexdigest()[:16]


def remember(names: Iterable[str], root: Path = ROOT) -> None:
    """Notes that these pictures show the words of now."""
    file = root / SHOWN.relative_to(ROOT)
    shown = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    shown |= {name: digest(root, PICTURES[name]) for name in names if name in PICTURES}
    file.write_text(json.dumps(dict(sorted(shown.items())), indent=1) + "\n", "utf-8")


def outdated(root: Path = ROOT) -> Iterator[str]:
    """The names of the pictures that show other words than the panels have now."""
    file = root / SHOWN.relative_to(ROOT)
    shown = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return (name for name, files in PICTURES.items() if shown.get(name) != digest(root, files))


def main() -> int:
    old = list(outdated())
    if old:
        names = ", ".join(old)
        print(f"Pictures of the guide that are older than what they show: {names}. Take them with `build.py docs`.")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
