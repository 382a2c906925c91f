"""The web page of an avatar. Its baked model and how its head moves are made anew: a file may lack these parts, and
opening an avatar does not check them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..avatar.avatar import Avatar, save_avatar
from ..avatar.baked import Sliders, motion_arrays
from ..correspondence.arkit import ARKIT_NAMES, arkit_map
from ..errors import EffigyError
from ..progress import Progress
from ..storage import write_beside
from ..web_page import SUFFIX, moves_by_itself, page_of


def check_page_name(out: Path) -> None:
    """Raise an `EffigyError` for a name that a browser would not open."""
    if out.suffix.lower() != SUFFIX:
        raise EffigyError(f"{out} should end in {SUFFIX}: a web page is what it will hold.")


def write_page(avatar: Avatar, source: Path, out: Path, progress: Progress) -> int:
    """Write the page of the avatar that was loaded from the file `source`; returns the page's size in bytes."""
    if avatar.networks.blendshapes is None:
        raise EffigyError(
            f"{source} is an avatar of graph U-Nets, which only the backend can play: make one of blendshapes of it "
            "with `bake`, then its page."
        )
    content = _saved_again(avatar)
    sliders, motion = (), None
    if not moves_by_itself(content):
        model = avatar.head_model
        mapping = arkit_map(model, progress)
        sliders = ARKIT_NAMES
        motion = motion_arrays(model, Sliders(sliders, mapping.expression, mapping.jaw))
        progress.message(
            f"The page holds expressions of the head model “{model.name}”: see whether its licence lets you pass them "
            "on."
        )
    page = page_of(content, out.stem, sliders, motion)
    with write_beside(out, durable=False) as temporary:
        temporary.write_bytes(page)
    return len(page)


def _saved_again(avatar: Avatar) -> bytes:
    """The content of a file of this avatar as it is written today."""
    with tempfile.TemporaryDirectory(prefix="effigy-page-") as folder:
        path = Path(folder, "avatar.effigy")
        save_avatar(avatar, path)
        return path.read_bytes()
