"""Pictures of the guide that are older than the panels they show are named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from building import pictures

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the files that the pictures show, with pictures of now."""
    for file in {file for files in pictures.PICTURES.values() for file in files}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, tmp_path / file)
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    assert set(pictures.outdated(tmp_path)) == set(pictures.PICTURES)
    pictures.remember(pictures.PICTURES, tmp_path)
    assert list(pictures.outdated(tmp_path)) == []
    return tmp_path


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")


def test_a_picture_is_old_when_a_word_of_its_panel_changes_and_not_when_the_code_does(project: Path) -> None:
    panel = project / "blender_addon" / "panels" / "preferences_page.py"
    change(panel, '"""Effigy\'s page', '"""The page')
    change(panel, "import bpy\n", "import bpy\n\n# A comment.\n")
    assert list(pictures.outdated(project)) == []
    change(panel, 'text="Examining…"', 'text="Looking…"')
    assert list(pictures.outdated(project)) == ["preferences"]
    change(project / "blender_addon" / "panels" / "train_panel.py", '"Training: see Jobs"', '"See Jobs"')
    assert set(pictures.outdated(project)) == {"preferences", "rig", "training"}
    pictures.remember(["rig"], project)
    assert set(pictures.outdated(project)) == {"preferences", "training"}


def test_every_picture_of_the_guide_that_the_steps_take_is_watched() -> None:
    shown = dict(re.findall(r"images/(\w+)\.(png|webp)", (ROOT / "docs" / "guide.md").read_text("utf-8")))
    code = "".join((ROOT / "docs" / "pictures" / name).read_text("utf-8") for name in ("steps.py", "pages.py"))
    taken = {name for name in shown if f'"{name}"' in code}
    assert taken == set(pictures.PICTURES)
    assert all((ROOT / "docs" / "images" / f"{name}.{shown[name]}").is_file() for name in taken)
    assert all((ROOT / file).is_file() for files in pictures.PICTURES.values() for file in files)
