"""Whether the GPU can be used has one answer, found by trying; where it cannot, the reason is a sentence."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_capture import make_small_capture

from backend import devices
from backend.avatar.avatar import load_avatar
from backend.devices import DeviceReport, choose_device, give_up_cuda, has_kernels_for, usable_cuda
from backend.errors import EffigyError
from backend.service import doctor
from backend.service.cli import main
from backend.splatting import gpu_choice
from backend.splatting.cpu import rasterize_cpu
from backend.splatting.cuda import why_unavailable
from backend.splatting.gpu_choice import Candidate, first_that_works
from backend.splatting.self_test import fault_of
from backend.splatting.types import Raster

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No earlier test's answer is remembered, and none is left to later tests."""
    monkeypatch.setattr(devices, "_report", None)


@pytest.fixture
def driver_without_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An imitation of nvidia-smi that names a card, which PyTorch's build for the CPU cannot use."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\nprint('NVIDIA GeForce RTX 4070, 552.12')\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@WITHOUT_CUDA
@pytest.mark.skipif(sys.platform == "win32", reason="the imitation is a script with a shebang")
def test_a_card_that_pytorch_cannot_use_is_named_with_the_reason(driver_without_cuda) -> None:
    report = usable_cuda()
    assert not report.usable and report.gpu == "NVIDIA GeForce RTX 4070 (driver 552.12)"
    assert report.reason.startswith("The NVIDIA GeForce RTX 4070 (driver 552.12) is not used: this PyTorch (")
    assert "without CUDA" in report.reason and report.reason.endswith("Everything runs on the CPU.")
    assert choose_device("auto") == CPU
    with pytest.raises(EffigyError, match="RTX 4070 .* is not used"):
        choose_device("cuda")
    findings = {finding.subject: finding for finding in doctor.examine()}
    assert findings["GPU"].explanation == report.reason and findings["GPU"].state == "missing"


@WITHOUT_CUDA
@pytest.mark.skipif(sys.platform == "win32", reason="the imitation is a script with a shebang")
def test_the_demos_commands_end_well_on_the_cpu_with_the_reason_said_once(
    driver_without_cuda, tmp_path, monkeypatch
) -> None:
    """Each command in a process of its own, as the demo starts them, on a machine whose card PyTorch cannot use."""
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, _, _ = make_small_capture(tmp_path, frames=16)
    avatar, said = tmp_path / "ball.effigy", []
    for command in (
        ("train", capture.folder, avatar, "--preset", "draft", "--minutes", "0.02", "--size", "64"),
        ("render", avatar, capture.folder / "track.npz", tmp_path / "frames"),
    ):
        completed = subprocess.run(
            [sys.executable, "-m", "backend", *map(str, command)], cwd=ROOT, capture_output=True, text=True
        )
        assert completed.returncode == 0, completed.stderr
        said += [line for line in completed.stdout.splitlines() if "RTX 4070" in line]
    assert len(said) == 1
    assert said[0].startswith("The NVIDIA GeForce RTX 4070 (driver 552.12) is not used: this PyTorch")
    assert load_avatar(avatar).metrics["device"] == "cpu"


@WITHOUT_CUDA
@pytest.mark.skipif(sys.platform == "win32", reason="the imitation is a script with a shebang")
@pytest.mark.parametrize("script", ["exit 9", "printf '\\377\\376'; exit 0", "exit 0"])
def test_a_driver_tool_that_fails_or_prints_no_text_does_no_harm(tmp_path, monkeypatch, script) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert not usable_cuda().usable and choose_device("auto") == CPU


@WITHOUT_CUDA
@pytest.mark.skipif(sys.platform == "win32", reason="a program of a POSIX shell")
def test_the_card_is_named_in_the_linux_of_windows(tmp_path, monkeypatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4070, 552.12'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(devices, "WSL_FOLDER", str(tmp_path))
    assert devices._gpu_of_driver() == "NVIDIA GeForce RTX 4070 (driver 552.12)"


def test_on_apple_silicon_the_doctor_says_that_training_runs_on_the_cpu(monkeypatch) -> None:
    for question, answer in (("system", "Darwin"), ("machine", "arm64")):
        monkeypatch.setattr(devices.platform, question, lambda answer=answer: answer)
    finding = doctor._gpu()
    assert finding.state == "missing" and "Training and drawing run on the CPU" in finding.explanation
    assert "Apple" in finding.explanation and "NVIDIA" not in finding.explanation
    assert choose_device("auto") == CPU


@pytest.mark.parametrize(
    ("architectures", "capability", "usable"),
    [
        (["sm_75", "sm_80", "sm_86", "sm_90", "sm_120"], (8, 9), True),
        (["sm_75", "sm_80", "sm_86", "sm_90", "sm_120"], (6, 1), False),
        (["sm_50", "sm_60", "sm_70", "sm_80", "sm_86", "sm_90"], (12, 0), False),
        (["sm_50", "sm_60", "sm_70", "sm_80", "sm_90", "compute_90"], (12, 0), True),
        (["sm_90a"], (9, 0), True),
        (["sm_86"], (8, 0), False),
        ([], (8, 6), False),
    ],
)
def test_a_build_of_pytorch_runs_on_the_cards_that_it_has_kernels_for(architectures, capability, usable) -> None:
    assert has_kernels_for(architectures, *capability) == usable


def test_a_gpu_that_was_given_up_stays_unused_in_this_process(monkeypatch) -> None:
    monkeypatch.setattr(devices, "_report", DeviceReport(True, "Some GPU", "The Some GPU is used.", "gsplat 1.5.3"))
    assert choose_device("auto").type == "cuda"
    assert give_up_cuda(ValueError("a mistake in a file")) is None and choose_device("auto").type == "cuda"
    reason = give_up_cuda(RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be …"))
    assert reason == "The Some GPU failed (CUDA error: unspecified launch failure)."
    assert choose_device("auto") == CPU and usable_cuda().reason == reason
    assert give_up_cuda(RuntimeError("a defect on the CPU")) is None
    assert usable_cuda().gpu == "Some GPU" and usable_cuda().rasteriser is None


def test_a_gsplat_that_fails_to_compile_is_told_in_a_sentence(tmp_path, monkeypatch) -> None:
    (tmp_path / "gsplat" / "cuda").mkdir(parents=True)
    for folder in ("gsplat", "gsplat/cuda"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "gsplat/cuda/_backend.py").write_text(
        "raise RuntimeError(\"Error building extension 'gsplat_cuda': [1/9] nvcc …\\nninja: build stopped\")"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    reason = why_unavailable()
    assert reason is not None and "kernels cannot be built: Error building extension 'gsplat_cuda'" in reason
    assert "\n" not in reason
    for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
        del sys.modules[name]


def _fails(splats, cameras) -> Raster:
    raise RuntimeError("nvrtc: error: invalid value for --gpu-architecture (-arch)\nat line 3")


def _draws_too_dark(splats, cameras) -> Raster:
    raster = rasterize_cpu(splats, cameras)
    return replace(raster, color=0.9 * raster.color)


def _has_no_gradient_of_scales(splats, cameras) -> Raster:
    return rasterize_cpu(
        replace(
            splats, scales=splats.scales + 0 * splats.scales.detach() - 0.5 * (splats.scales - splats.scales.detach())
        ),
        cameras,
    )


def test_a_rasteriser_is_used_only_if_pictures_and_gradients_are_right() -> None:
    assert fault_of(rasterize_cpu, CPU) is None
    assert fault_of(_fails, CPU) == "nvrtc: error: invalid value for --gpu-architecture (-arch)"
    assert "wrong picture (color" in str(fault_of(_draws_too_dark, CPU))
    assert "gradient of the scales is wrong by 50 %" in str(fault_of(_has_no_gradient_of_scales, CPU))


def test_the_first_rasteriser_that_works_is_chosen_and_the_faults_of_the_others_are_kept() -> None:
    broken = Candidate("cuda", "gsplat", "torch", _fails)
    choice = first_that_works([broken, Candidate("warp", "Warp", "torch", rasterize_cpu)], CPU)
    assert choice.backend == "warp"
    assert choice.explanation.startswith(f"Warp {torch.__version__}, because gsplat cannot be used (nvrtc: error")
    none = first_that_works([Candidate("cuda", "gsplat", "torch", _draws_too_dark)], CPU)
    assert none.backend is None and "gsplat cannot be used (it draws a wrong picture" in none.explanation


def test_a_rasteriser_that_no_package_manager_installed_is_used_as_well() -> None:
    choice = first_that_works([Candidate("cuda", "gsplat", "no-such-distribution", rasterize_cpu)], CPU)
    assert choice.backend == "cuda" and choice.explanation == "gsplat"


def test_two_threads_that_ask_at_once_try_the_gpu_once(monkeypatch) -> None:
    tried = []

    def examine() -> DeviceReport:
        tried.append(1)
        time.sleep(0.1)
        return DeviceReport(False, None, devices.NO_GPU)

    monkeypatch.setattr(devices, "_report", None)
    monkeypatch.setattr(devices, "_examine", examine)
    threads = [threading.Thread(target=usable_cuda) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tried) == 1


def test_a_gpu_whose_software_raises_anything_is_not_used_and_the_cause_is_said(monkeypatch) -> None:
    def broken() -> tuple[int, int]:
        raise OSError("libcuda.so.1: file too short")

    monkeypatch.setattr(devices, "_report", None)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", broken)
    assert choose_device("auto") == CPU
    assert usable_cuda().reason == (
        "The Some GPU is not used: libcuda.so.1: file too short. Everything runs on the CPU."
    )


def test_a_gpu_without_gsplat_is_drawn_on_by_warp_and_the_doctor_says_why(monkeypatch) -> None:
    """`doctor` on an imitation of a GPU: the rasterisers are tried for real, on the CPU's memory."""
    pytest.importorskip("warp", reason="NVIDIA Warp (warp-lang) is not installed here")
    if importlib.util.find_spec("gsplat") is not None:
        pytest.skip("gsplat is installed here")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    choice = first_that_works(gpu_choice.CANDIDATES, CPU)
    assert choice.backend == "warp"
    monkeypatch.setattr(devices, "_report", DeviceReport(True, "Some GPU", "It is used.", choice.explanation))
    finding = doctor._gpu_rasterizer()
    assert finding.state == doctor.OK
    assert finding.explanation == (
        f"NVIDIA Warp {importlib.metadata.version('warp-lang')}, because gsplat cannot be used "
        "(The package gsplat is not installed (pip install gsplat==1.5.3))"
    )


def test_the_doctors_check_trains_and_draws_and_its_exit_code_tells_what_is_broken(capsys, monkeypatch) -> None:
    """`doctor --check` is what decides whether an installation is called good."""
    monkeypatch.setattr(doctor, "_detector", lambda: doctor.Finding("Detector", doctor.OK, "not loaded in this test"))
    assert main(["doctor", "--check", "--device", "cpu"]) == 0
    assert "trained for 2 steps and drawn on the device cpu" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr("backend.service.device_check.rasterize", _draws_too_dark)
    assert main(["doctor", "--check"]) == 2
    error = capsys.readouterr().err
    assert "Training: The rasteriser draws a wrong picture on the device cpu" in error and error.count("\n") == 1
    assert main(["doctor"]) == 0


@WITHOUT_CUDA
def test_the_check_on_a_gpu_that_is_not_usable_fails_with_the_reason(capsys) -> None:
    assert main(["doctor", "--check", "--device", "cuda"]) == 2
    assert usable_cuda().reason in capsys.readouterr().err
