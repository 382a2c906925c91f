"""Writing splats to the files of `backend.splat_files`, and reading the `.ply` that 3D Gaussian Splatting programs
exchange.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from ..errors import EffigyError
from ..reading import Damaged, Unlike, read_bytes, reading
from ..splat_files import C0, COLUMNS, FORMATS, REST, Gaussians, encoded, format_of
from ..storage import write_beside
from .types import Splats

REMEDY: Final = "export it again"
MOST_BYTES: Final = 2**30
"""Four million Gaussians."""


def check_splat_name(path: Path) -> str:
    """The format in which a file's name ends, one of `FORMATS`. Raises an `EffigyError` for another one."""
    suffix = format_of(path.name)
    if suffix is None:
        raise EffigyError(
            f"{path} should end in {', '.join([*FORMATS][:-1])} or {[*FORMATS][-1]}: that is the format it will hold."
        )
    return suffix


def write_splats(path: Path, splats: Splats, harmonics: torch.Tensor | None = None) -> int:
    """Write one frame (B = 1) in the format in which the name ends, and return how many Gaussians the file holds.

    `harmonics` (1, G, K, 3) replaces the plain colours of a `.ply`. Gaussians too faint to be drawn (opacity below
    1/255) are not written.
    """
    suffix = check_splat_name(path)
    if splats.means.shape[0] != 1:
        raise EffigyError(f"A {suffix} file holds one frame of splats, but {splats.means.shape[0]} were given.")
    parts = {name: tensor[0].detach().cpu().double().numpy() for name, tensor in vars(splats).items()}
    if harmonics is not None:
        coefficients = harmonics[0].detach().cpu().double().numpy()
        parts |= {"colors": 0.5 + C0 * coefficients[:, 0], "rest": coefficients[:, 1:]}
    content, count = encoded(suffix, Gaussians(**parts))
    with write_beside(path, durable=False) as temporary:
        temporary.write_bytes(content)
    return count


def read_ply(path: Path) -> tuple[Splats, torch.Tensor]:
    """The splats (B = 1) of such a file and their spherical harmonics (1, G, 16, 3).

    `colors` are the constant part of the harmonics. Property order and number are read from the header.
    """
    with reading(path, "file of Gaussians", REMEDY):
        return _read(Path(path))


def _read(path: Path) -> tuple[Splats, torch.Tensor]:
    content = read_bytes(path, "file of Gaussians", MOST_BYTES, REMEDY)
    head, mark, body = content.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").split("\n")
    counts = [line.split()[-1] for line in lines if line.startswith("element vertex ")]
    names = [line.split()[-1] for line in lines if line.startswith("property float ")]
    needed = [name for name in COLUMNS if not name.startswith(("n", "f_rest"))]
    if not mark or lines[0] != "ply" or lines[1] != "format binary_little_endian 1.0" or len(counts) != 1:
        raise Unlike("it is no binary .ply file")
    if missing := [name for name in needed if name not in names]:
        raise Unlike(f"its properties lack {', '.join(missing)}")
    if len(body) != 4 * int(counts[0]) * len(names):
        raise EffigyError(
            f"{path} is cut short or damaged: it does not contain the {counts[0]} Gaussians of its header."
        )
    table = np.frombuffer(body, "<f4").reshape(-1, len(names))
    column = {name: k for k, name in enumerate(names)}

    def fields(*columns: str) -> torch.Tensor:
        return torch.tensor(table[:, [column[name] for name in columns]])[None]

    per_color = sum(name.startswith("f_rest_") for name in names) // 3
    if per_color > REST:
        raise Damaged(f"it has more than {REST} harmonics for a colour")
    constant = fields("f_dc_0", "f_dc_1", "f_dc_2")
    harmonics = torch.zeros(1, len(table), REST + 1, 3)
    harmonics[:, :, 0] = constant
    for c in range(3):
        rest = fields(*(f"f_rest_{c * per_color + k}" for k in range(per_color)))
        harmonics[:, :, 1 : per_color + 1, c] = rest
    splats = Splats(
        means=fields("x", "y", "z"),
        quaternions=fields(*(f"rot_{k}" for k in range(4))),
        scales=fields(*(f"scale_{k}" for k in range(3))).exp(),
        opacities=fields("opacity")[..., 0].sigmoid(),
        colors=(0.5 + C0 * constant).clamp_min(0.0),
    )
    return splats, harmonics
