"""Writing and reading splats as the `.ply` file that 3D Gaussian Splatting programs exchange.

One binary little-endian record of 62 floats per Gaussian, named as in the released program of Kerbl et al. 2023:
x y z, nx ny nz (unused, zero), f_dc_0…2 and f_rest_0…44 (spherical harmonics; the rest colour by colour), opacity
(before the sigmoid), scale_0…2 (natural logarithm, metres), rot_0…3 (w, x, y, z). All 45 f_rest are written even when
colour does not depend on direction, because many viewers refuse a file without them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from ..errors import EffigyError
from ..reading import Damaged, Unlike, read_bytes, reading
from ..storage import write_beside
from .reference import ALPHA_MIN
from .spherical_harmonics import C0, MAX_DEGREE
from .types import Splats

REMEDY: Final = "export it again"
MOST_BYTES: Final = 2**30
"""Four million Gaussians."""
_REST = (MAX_DEGREE + 1) ** 2 - 1
COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz"),
    *(f"f_dc_{k}" for k in range(3)),
    *(f"f_rest_{k}" for k in range(3 * _REST)),
    "opacity",
    *(f"scale_{k}" for k in range(3)),
    *(f"rot_{k}" for k in range(4)),
)


def write_ply(path: Path, splats: Splats, harmonics: torch.Tensor | None = None) -> int:
    """Write one frame (B = 1) and return how many Gaussians the file holds.

    `harmonics` (1, G, K, 3) replaces the plain colours. Gaussians too faint to be drawn (opacity below 1/255) are not
    written.
    """
    if splats.means.shape[0] != 1:
        raise EffigyError(f"A .ply file holds one frame of splats, but {splats.means.shape[0]} were given.")
    means, quaternions, scales, opacities, colors = (
        tensor[0].detach().cpu().double().numpy() for tensor in vars(splats).values()
    )
    visible = opacities >= ALPHA_MIN
    table = np.zeros((int(visible.sum()), len(COLUMNS)), "<f4")
    column = {name: k for k, name in enumerate(COLUMNS)}
    dc, rest, opacity, scale, rotation = (
        column[name] for name in ("f_dc_0", "f_rest_0", "opacity", "scale_0", "rot_0")
    )
    table[:, :3] = means[visible]
    table[:, dc : dc + 3] = (colors[visible] - 0.5) / C0
    if harmonics is not None:
        coefficients = harmonics[0].detach().cpu().double().numpy()[visible]
        padded = np.zeros((len(coefficients), 3, _REST))
        padded[:, :, : coefficients.shape[1] - 1] = coefficients[:, 1:].transpose(0, 2, 1)
        table[:, dc : dc + 3] = coefficients[:, 0]
        table[:, rest : rest + 3 * _REST] = padded.reshape(-1, 3 * _REST)
    # A fully opaque Gaussian would have an infinite logit; 1 - 1e-6 is still distinguishable from 1 in float32.
    probability = np.clip(opacities[visible], None, 1 - 1e-6)
    table[:, opacity] = np.log(probability / (1 - probability))
    table[:, scale : scale + 3] = np.log(np.maximum(scales[visible], 1e-12))
    length = np.linalg.norm(quaternions[visible], axis=1, keepdims=True)
    table[:, rotation:] = quaternions[visible] / np.maximum(length, 1e-12)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in COLUMNS]
    with write_beside(Path(path), durable=False) as temporary:
        temporary.write_bytes("\n".join([*header, "end_header\n"]).encode() + table.tobytes())
    return len(table)


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
    if per_color > _REST:
        raise Damaged(f"it has more than {_REST} harmonics for a colour")
    constant = fields("f_dc_0", "f_dc_1", "f_dc_2")
    harmonics = torch.zeros(1, len(table), _REST + 1, 3)
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
