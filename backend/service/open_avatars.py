"""The avatars that the worker keeps open: found by the path of their file, and read again when the file changed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ..avatar.avatar import Avatar, load_avatar

MAX_OPEN: Final = 8
"""Avatars open at once; the least recently used one is closed for another. An avatar takes some tens of megabytes."""

FileStamp = tuple[int, int]
"""Time of the last change (nanoseconds) and size (bytes) of a file."""


@dataclass(frozen=True)
class AvatarInfo:
    """What `avatar.open` answers about an avatar."""

    name: str
    head_name: str
    head_fingerprint: str
    identity: np.ndarray
    """(S,) identity coefficients of the head model."""
    settings: dict[str, Any]
    metrics: dict[str, Any]
    gaussians: int
    megabytes: float
    size: int
    """Side of the images that it was trained on, pixels."""
    device: str
    """Where the worker evaluates its networks: `cpu` or `cuda`."""


@dataclass(frozen=True)
class _OpenAvatar:
    stamp: FileStamp | None
    avatar: Avatar


class OpenAvatars:
    def __init__(self) -> None:
        self._open: OrderedDict[Path, _OpenAvatar] = OrderedDict()
        """The most recently used avatar is last."""
        self._device: torch.device | None = None

    def get(self, path: Path) -> Avatar:
        """The avatar in this file. An open avatar whose file was deleted stays usable."""
        stamp = _stamp_of(path)
        found = self._open.get(path)
        if found is None or (stamp is not None and stamp != found.stamp):
            found = _OpenAvatar(stamp, load_avatar(path, device=self._choose_device()))
            self._open[path] = found
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return found.avatar

    def describe(self, path: Path) -> AvatarInfo:
        if _stamp_of(path) is None:
            # `avatar.open` is about the file: where it is missing, the copy in memory must not answer for it.
            self._open.pop(path, None)
        avatar = self.get(path)
        return AvatarInfo(
            name=path.stem,
            head_name=avatar.head_model.name,
            head_fingerprint=avatar.head_model.fingerprint,
            identity=avatar.identity,
            settings=avatar.settings.to_dict(),
            metrics=avatar.metrics,
            gaussians=avatar.gaussian_count,
            megabytes=avatar.megabytes,
            size=avatar.settings.size,
            device=str(avatar.device),
        )

    def _choose_device(self) -> torch.device:
        if self._device is None:
            from ..devices import choose_device

            self._device = choose_device("auto")
        return self._device


def _stamp_of(path: Path) -> FileStamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
