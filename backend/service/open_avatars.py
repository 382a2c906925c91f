"""The avatars that the worker keeps open: found by their file, read again when it changed."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from ..avatar.avatar import Avatar, load_avatar

MOST = 8
"""Avatars open at once; the one longest unused makes room. An avatar takes some tens of megabytes of memory."""


class OpenAvatars:
    def __init__(self) -> None:
        self._open: OrderedDict[Path, tuple[tuple[int, int] | None, Avatar]] = OrderedDict()
        self._device: torch.device | None = None

    def get(self, path: Path) -> Avatar:
        """The avatar in this file. One whose file is gone stays usable as long as it is open."""
        stamp = _stamp(path)
        held = self._open.get(path)
        if held is None or (stamp is not None and stamp != held[0]):
            held = stamp, load_avatar(path, device=self._chosen_device())
            self._open[path] = held
            while len(self._open) > MOST:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return held[1]

    def describe(self, path: Path) -> dict[str, Any]:
        if _stamp(path) is None:
            # Whoever opens wants the file, not what is left of it in memory.
            self._open.pop(path, None)
        avatar = self.get(path)
        return {
            "name": path.stem,
            "head_name": avatar.head_model.name,
            "head_fingerprint": avatar.head_model.fingerprint,
            "identity": avatar.identity,
            "settings": avatar.settings.to_dict(),
            "metrics": avatar.metrics,
            "gaussians": avatar.gaussian_count,
            "megabytes": avatar.megabytes,
            "size": avatar.settings.size,
            "device": str(avatar.device),
        }

    def _chosen_device(self) -> torch.device:
        if self._device is None:
            from ..splatting.cuda import why_unavailable

            # Without gsplat a GPU could evaluate the networks, but nothing could draw what they say.
            self._device = torch.device("cpu" if why_unavailable() else "cuda")
        return self._device


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
