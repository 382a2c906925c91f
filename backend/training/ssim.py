"""SSIM, the structural similarity of two images: a metric and, as 1 - SSIM, a term of the training loss.

Wang et al. 2004, eq. 13, with their constants: an 11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, data
range 1, over the windows that lie wholly inside the image, averaged over positions and colour channels.

A straightforward convolution of five maps takes longer than the rasteriser. On the CPU the window is therefore OpenCV's
separable filter and the gradient is analytic; on other devices, and as the readable reference, it is a grouped
convolution.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
from torch.nn import functional

from ..splatting.jit import kernel

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) x 2 in [0, 1] -> (B,) SSIM in [-1, 1]; differentiable with respect to `a` and, more slowly, to
    `b`.
    """
    if a.device.type == "cpu" and not b.requires_grad:
        return _WindowedSsim.apply(a, b)
    return ssim_reference(a, b)


def ssim_reference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The formula of the module docstring, written out for any device."""
    a, b = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2)
    channels = a.shape[1]
    line = _window_on(a.dtype, str(a.device))

    def mean(x: torch.Tensor) -> torch.Tensor:
        x = functional.conv2d(x, line.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        return functional.conv2d(x, line.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a * mean_a, mean(b * b) - mean_b * mean_b
    covariance = mean(a * b) - mean_a * mean_b
    values = ((2 * mean_a * mean_b + C1) * (2 * covariance + C2)) / (
        (mean_a * mean_a + mean_b * mean_b + C1) * (variance_a + variance_b + C2)
    )
    return values.mean(dim=(1, 2, 3))


@lru_cache(maxsize=4)
def _window_on(dtype: torch.dtype, device: str) -> torch.Tensor:
    """The window on a device, copied there once."""
    return torch.from_numpy(_window()).to(device, dtype)


def _window() -> np.ndarray:
    offsets = np.arange(WINDOW) - WINDOW // 2
    line = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    return line / line.sum()


def _blur(x: np.ndarray) -> np.ndarray:
    """(H, W, C): the windowed mean at every pixel, with zeros beyond the border, so that the filter is self-adjoint."""
    line = _window().astype(x.dtype)
    return cv2.sepFilter2D(x, -1, line, line, borderType=cv2.BORDER_CONSTANT)


class _WindowedSsim(torch.autograd.Function):
    """SSIM on the CPU, one image at a time, with a hand-written derivative by `a`.

    With m = mean(a), q = mean(a a), c = mean(a b) as the only windowed maps that depend on `a`, a value is S(m, q, c)
    and dS/da = W^T(dS/dm) + 2 a W^T(dS/dq) + b W^T(dS/dc), where W^T = W because the window is symmetric.
    """

    @staticmethod
    def forward(ctx, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        images = [(x.contiguous().numpy(), y.contiguous().numpy()) for x, y in zip(a.detach(), b.detach(), strict=True)]
        results = [_ssim_and_gradient(x, y, ctx.needs_input_grad[0]) for x, y in images]
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(
                torch.from_numpy(np.stack([gradient for _, gradient in results if gradient is not None]))
            )
        return torch.tensor([value for value, _ in results], dtype=a.dtype)

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.view(-1, 1, 1, 1), None


def _ssim_and_gradient(a: np.ndarray, b: np.ndarray, with_gradient: bool) -> tuple[float, np.ndarray | None]:
    """SSIM of one (H, W, 3) pair, and its gradient with respect to `a` (None without `with_gradient`)."""
    height, width, channels = a.shape
    squares, products = np.empty_like(a), np.empty_like(a)
    _second_moments(a, b, squares, products)
    maps = [_blur(x) for x in (a, b, squares, products)]
    # One array per derivative; it stays zero at the rim, where windows extend beyond the image.
    derivatives = [np.zeros_like(a) for _ in range(3)]
    total = _values(maps[0], maps[1], maps[2], maps[3], derivatives[0], derivatives[1], derivatives[2])
    count = (height - WINDOW + 1) * (width - WINDOW + 1) * channels
    if not with_gradient:
        return total / count, None
    gradient = np.empty_like(a)
    mean, square, product = (_blur(x) for x in derivatives)
    _gather(a, b, mean, square, product, 1.0 / count, gradient)
    return total / count, gradient


# The passes between the filters are compiled: as NumPy expressions they took four times as long as the filters.


@kernel(fast=True)
def _second_moments(a, b, squares, products):
    """a^2 + b^2 and a b; SSIM needs the two variances only as their sum."""
    a, b, squares, products = a.ravel(), b.ravel(), squares.ravel(), products.ravel()
    for i in range(a.size):
        squares[i] = a[i] * a[i] + b[i] * b[i]
        products[i] = a[i] * b[i]


@kernel(fast=True)
def _values(mean_a, mean_b, mean_squares, mean_products, by_mean, by_square, by_product):
    """Sum of SSIM over the windows inside the image; fills dS/dm, dS/dq and dS/dc there (see `_WindowedSsim`)."""
    margin = WINDOW // 2
    height, width, channels = mean_a.shape
    total = 0.0
    for row in range(margin, height - margin):
        of_row = np.float32(0.0)
        for column in range(margin, width - margin):
            for k in range(channels):
                m, n = mean_a[row, column, k], mean_b[row, column, k]
                both = m * n
                power = m * m + n * n
                luminance_top = np.float32(2.0) * both + np.float32(C1)
                luminance_bottom = power + np.float32(C1)
                contrast_top = np.float32(2.0) * (mean_products[row, column, k] - both) + np.float32(C2)
                contrast_bottom = mean_squares[row, column, k] - power + np.float32(C2)
                bottom = np.float32(1.0) / (luminance_bottom * contrast_bottom)
                value = luminance_top * contrast_top * bottom
                of_row += value
                product = np.float32(2.0) * luminance_top * bottom
                square = -value * luminance_bottom * bottom
                by_product[row, column, k] = product
                by_square[row, column, k] = square
                # m also occurs in both luminance factors and, through the variances, in both contrast factors.
                by_mean[row, column, k] = (
                    np.float32(2.0) * bottom * (n * contrast_top - m * value * contrast_bottom)
                    - n * product
                    - np.float32(2.0) * m * square
                )
        total += of_row
    return total


@kernel(fast=True)
def _gather(a, b, by_mean, by_square, by_product, scale, gradient):
    """Scale x (dS/dm + 2 a dS/dq + b dS/dc) at every pixel; the three derivatives are already filtered by the
    window.
    """
    scale = np.float32(scale)
    a, b, gradient = a.ravel(), b.ravel(), gradient.ravel()
    by_mean, by_square, by_product = by_mean.ravel(), by_square.ravel(), by_product.ravel()
    for i in range(a.size):
        gradient[i] = scale * (by_mean[i] + np.float32(2.0) * a[i] * by_square[i] + b[i] * by_product[i])
