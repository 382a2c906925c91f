"""What an installation plans on each kind of machine: packages, sizes, and the sentences that the artist reads."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bench.installation_plans import MACHINES, plan_on
from blender_addon.installation import machine as machines
from blender_addon.installation.figures import load_figures
from blender_addon.installation.gpu import DriverReport, Gpu, ask_driver
from blender_addon.installation.machine import MAX_PATH, Machine, platform_of, this_machine
from blender_addon.installation.place import REQUIREMENT_FILES, Environments, python_of
from blender_addon.installation.plan import PIP_WHEEL, choose_torch, make_plan

ROOT = Path(__file__).resolve().parents[2]
RTX_4060 = Gpu("NVIDIA GeForce RTX 4060", (610, 43), (8, 9), (13, 3))
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_INDEX = "https://download.pytorch.org/whl/cu130"

EXPECTED = {
    "Windows, RTX 4070, driver 552": ("cpu", "torch.lock", "RTX 4070 is too old.*update the NVIDIA driver to 580"),
    "Windows, RTX 5090, driver 570": ("cpu", "torch.lock", "RTX 5090 is too old.*update the NVIDIA driver to 580"),
    "Windows, RTX 4060, driver 610": ("cu130", CUDA_INDEX, "The NVIDIA GeForce RTX 4060 trains and renders"),
    "Windows, GTX 1080, driver 581": ("cpu", "torch.lock", r"GTX 1080 \(compute capability 6.1\) is older than"),
    "Windows, no GPU": ("cpu", "torch.lock", "No NVIDIA GPU was found"),
    "Linux, RTX 4090, without nvcc": ("cu130", "torch-cuda.lock", "RTX 4090 trains and renders"),
    "Linux, RTX 4090, with nvcc": ("cu130", "torch-cuda.lock", "RTX 4090 trains and renders"),
    "Linux, no GPU": ("cpu", CPU_INDEX, "No NVIDIA GPU was found"),
    "macOS 13, Apple silicon": (None, None, "This is macOS 13.6, and PyTorch needs macOS 14: update macOS"),
    "macOS 14, Apple silicon": ("cpu", "torch.lock", "On a Mac the CPU trains"),
    "macOS 15, Apple silicon": ("cpu", "torch.lock", "On a Mac the CPU trains"),
    "macOS 15, Intel": (None, None, "made for Intel Macs"),
}
"""Machine -> PyTorch build, where it comes from, and what the artist reads; None if nothing is installed."""


def commands(plan) -> list[str]:
    return [" ".join(step.command) for step in plan.steps]


@pytest.mark.parametrize("python", [(3, 11), (3, 13)])
@pytest.mark.parametrize("name", EXPECTED)
def test_every_kind_of_machine_gets_the_packages_that_work_on_it_and_a_sentence_that_says_why(name, python):
    machine = replace(MACHINES[name], python=python)
    plan = plan_on(machine)
    torch, source, sentence = EXPECTED[name]
    said = " ".join(plan.messages)
    assert re.search(sentence, said), said
    if torch is None:
        assert plan.refusal and "Supported are" in plan.refusal and not plan.steps and not plan.download
        return
    assert plan.refusal is None and plan.torch == torch
    (pytorch,) = [step for step in plan.steps if step.title == "Installing PyTorch"]
    assert source in " ".join(pytorch.command)
    assert any("warp.lock" in command for command in commands(plan)) == (torch == "cu130")
    assert any("cuda.lock" in command and "torch-cuda" not in command for command in commands(plan)) == machine.compiler
    if machine.gpu:
        assert machine.gpu.name in said and "No NVIDIA GPU" not in said
    # Sizes: gigabytes of CUDA only where the GPU is used.
    assert (plan.download > 2e9) == (torch == "cu130") and plan.disk > plan.download


def test_the_table_has_every_kind_of_machine():
    assert MACHINES.keys() == EXPECTED.keys()


def test_every_package_is_pinned_by_hash_or_by_an_exact_build_of_one_index():
    for machine in MACHINES.values():
        for step in plan_on(machine).steps:
            if "install" not in step.command:
                continue
            assert {"--only-binary", "--no-deps", "--resume-retries"} <= set(step.command)
            if "--require-hashes" not in step.command:
                assert "--index-url" in step.command and "--extra-index-url" not in step.command
                assert step.command[-1] in ("torch==2.13.0+cpu", "torch==2.13.0+cu130")


def test_the_new_environment_is_made_by_blenders_python_and_filled_by_its_own():
    plan = plan_on(MACHINES["Linux, no GPU"])
    first, *rest = plan.steps
    assert first.command[0] == "python3" and first.command[-1] == str(plan.folder)
    assert all(step.command[0] == str(python_of(plan.folder)) for step in rest)
    assert rest[-1].command[-3:] == ("backend", "doctor", "--check")
    assert all(str(plan.environments.downloads) in step.command for step in rest if "install" in step.command)


def test_only_steps_that_install_packages_download_and_only_gsplat_is_optional():
    plan = plan_on(MACHINES["Linux, RTX 4090, with nvcc"])
    downloads = {step.title: step.download for step in plan.steps}
    assert {title for title, size in downloads.items() if not size} == {
        *("Creating the environment", "Checking PyTorch", "Testing the backend"),
    }
    assert sum(downloads.values()) == plan.download and downloads["Installing PyTorch"] > 2e9
    assert [step.title for step in plan.steps if step.optional] == ["Installing gsplat"]


@pytest.mark.parametrize(
    ("gpu", "sentence"),
    [
        (Gpu("Quadro P4000", (581,), (6, 1)), "Quadro P4000 (compute capability 6.1) is older"),
        (Gpu("Tesla V100", (550,), (7, 0)), "is older"),
        (Gpu("RTX A4000", (579, 9), (8, 6)), "update the NVIDIA driver to 580"),
        (Gpu("RTX 2060", None, (7, 5), (12, 9)), "update the NVIDIA driver to 580"),
        (Gpu("GeForce GTX 970"), "update the NVIDIA driver to 580"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_named_with_what_to_do(gpu, sentence):
    build, reason = choose_torch(Machine("Windows", (3, 11), gpu), "2.13.0")
    assert build == "cpu" and gpu.name in reason and sentence in reason


@pytest.mark.parametrize(
    "gpu",
    [
        Gpu("GTX 1650", (580,), (7, 5)),
        Gpu("RTX 5090", (580, 65, 6), (12, 0)),
        # A driver that tells no compute capability: the check at the end of the installation decides.
        Gpu("GRID A100-10C", (581,), None),
        Gpu("RTX 4060", None, (8, 9), (13, 3)),
    ],
)
def test_a_gpu_that_pytorch_and_warp_support_is_used(gpu):
    assert choose_torch(Machine("Linux", (3, 13), gpu), "2.13.0").torch == "cu130"


def test_a_driver_that_names_no_gpu_is_quoted():
    complaint = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    build, reason = choose_torch(Machine("Linux", (3, 11), driver_complaint=complaint), "2.13.0")
    assert build == "cpu" and complaint in reason and "No NVIDIA GPU was found" not in reason


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts an imitation of nvidia-smi on the PATH: (shell code for a query, shell code for the table)."""
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def imitate(query: str, table: str) -> DriverReport:
        program.write_text(f'#!/bin/sh\ncase "$1" in --query*) {query};; *) {table};; esac\n')
        program.chmod(0o755)
        return ask_driver()

    return imitate


needs_shell = pytest.mark.skipif(os.name == "nt", reason="the imitation of nvidia-smi is a shell script")


@needs_shell
@pytest.mark.parametrize("title", ["CUDA Version:", "CUDA UMD Version:", "CUDA UMD Version :"])
def test_the_gpu_and_its_driver_are_read_from_what_nvidia_smi_says(nvidia_smi, title):
    report = nvidia_smi(
        "echo 'NVIDIA GeForce RTX 4060, 610.43, 8.9'", f"echo '| Driver Version: 610.43  {title} 13.3 |'"
    )
    assert report == DriverReport(RTX_4060)


@needs_shell
def test_of_several_gpus_the_newest_counts(nvidia_smi):
    report = nvidia_smi(r"printf 'GTX 1080, 581.2, 6.1\nRTX 4090, 581.2, 8.9\nRTX 2060, 581.2, 7.5\n'", "true")
    assert report.gpu == Gpu("RTX 4090", (581, 2), (8, 9), None)


@needs_shell
def test_a_driver_that_does_not_know_compute_capabilities_still_names_its_gpu(nvidia_smi):
    query = 'case "$1" in *compute_cap*) echo "Field is not valid"; exit 2;; *) echo "GTX 970, 388.13";; esac'
    assert nvidia_smi(query, "echo 'CUDA Version: 9.1'").gpu == Gpu("GTX 970", (388, 13), None, (9, 1))


@needs_shell
@pytest.mark.parametrize(
    "query", [r"printf '\377\376\000, \201'; exit 3", "exit 9", "kill -9 $$", "echo '[N/A], [N/A], [N/A]'"]
)
def test_odd_answers_of_nvidia_smi_are_no_gpu_and_never_an_exception(nvidia_smi, query):
    report = nvidia_smi(query, r"printf '\377'; exit 1")
    assert report.gpu is None and report.complaint


def test_this_machine_is_described_without_an_exception():
    assert this_machine().python == sys.version_info[:2]


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        (Machine("Windows", (3, 11), processor="ARM64"), "Windows on ARM64"),
        (Machine("Linux", (3, 11), processor="aarch64"), "Linux on aarch64"),
        (Machine("Linux", (3, 11), version=(2, 27)), "glibc 2.27"),
        (Machine("FreeBSD", (3, 11)), "FreeBSD"),
        (Machine("Linux", (3, 10)), "Python 3.10"),
        (Machine("Windows", (3, 11), store=True), "Microsoft Store.*blender.org"),
    ],
)
def test_a_machine_that_is_not_supported_is_told_before_anything_is_downloaded(machine, sentence):
    plan = plan_on(machine)
    assert re.search(sentence, plan.refusal) and not plan.steps


def windows_plan(user: str, machine: Machine):
    root = f"C:\\Users\\{user}\\AppData\\Local\\Effigy\\5.0"
    return make_plan(machine, Environments(Path(root), Path("former")), ROOT, "python.exe")


@pytest.mark.parametrize("python", machines.PYTHONS)
@pytest.mark.parametrize("gpu", [None, RTX_4060])
def test_for_a_user_name_of_20_characters_every_path_stays_below_windows_limit(python, gpu):
    machine = Machine("Windows", python, gpu, compiler=gpu is not None)
    plan = windows_plan("u" * 20, machine)
    assert plan.refusal is None
    figures = load_figures(ROOT / "requirements", platform_of(machine), python)
    used = [row for name, row in figures.items() if any(name in command for command in commands(plan))]
    longest = max(row.longest for row in used)
    # `Path` on Linux joins with a slash, which has the same length.
    assert len(str(plan.folder)) + len("\\Lib\\site-packages\\") + longest <= MAX_PATH and longest >= 167


def test_paths_that_would_be_too_long_are_told_before_anything_is_downloaded():
    machine = Machine("Windows", (3, 11), RTX_4060)
    refusal = windows_plan("u" * 40, machine).refusal
    assert refusal and "Windows allows 259" in refusal and "enable long paths" in refusal
    assert windows_plan("u" * 40, replace(machine, long_paths=True)).refusal is None


def is_for(line: str, title: str) -> bool:
    """Whether a line of a lock is installed on the system and Python of `title`."""
    requirement, version = Requirement(line.rstrip(" \\")), title.rsplit(" ", 1)[1]
    system = "win32" if title.startswith("win") else "linux"
    where = {"sys_platform": system, "python_version": version, "python_full_version": f"{version}.0"}
    return requirement.marker is None or requirement.marker.evaluate(where)


def test_the_sizes_are_those_of_the_lists_that_are_shipped():
    table = json.loads((ROOT / "requirements" / "wheels.json").read_text("utf-8"))["platforms"]
    assert len(table) == 3 * len(machines.PYTHONS)
    for title, row in table.items():
        assert set(row) >= {"backend.lock", "torch.lock"}, title
        for name in row:
            lock = ROOT / "requirements" / name
            if lock.exists():
                pinned = [line for line in lock.read_text("utf-8").splitlines() if "==" in line and line[0].isalnum()]
                here = [line for line in pinned if is_for(line, title)]
                assert row[name]["packages"] == len(here), f"{name} changed: run `python3 build.py wheels`"
    assert (ROOT / "requirements" / PIP_WHEEL).is_file() and all(
        (ROOT / "requirements" / name).is_file() for name in REQUIREMENT_FILES
    )
