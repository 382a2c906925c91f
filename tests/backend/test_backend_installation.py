"""Installing the backend from Blender: the plan and its sizes, progress and cancellation, and errors as sentences."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from blender_addon.child_environment import PYTHON_VARIABLES
from blender_addon.errors import EffigyError
from blender_addon.installation import install as installing
from blender_addon.installation import place
from blender_addon.installation.check import check_interpreter
from blender_addon.installation.gpu import Gpu, find_gpu
from blender_addon.installation.install import Installation
from blender_addon.installation.plan import Machine, Plan, Step, choose_rasteriser, make_plan

ROOT = Path(__file__).resolve().parents[2]
CPU = Machine("Linux", (3, 11), None, False)
RTX = Gpu("NVIDIA RTX 4090", (13, 1))


def small_plan(folder: Path, *commands: str, packages: int = 0) -> Plan:
    """A plan that runs small Python programs instead of venv and pip."""
    steps = tuple(
        Step(f"Step {number}", (sys.executable, "-c", code), packages) for number, code in enumerate(commands, 1)
    )
    return Plan(folder, ROOT / "requirements", steps, "cpu", 0.0, 0.0, ())


def run(plan: Plan, tmp_path: Path) -> Installation:
    installation = Installation(plan, tmp_path / "install.log")
    installation.start()
    installation.wait(20)
    return installation


MAKE_PYTHON = "import pathlib; p = pathlib.Path({!r}); p.parent.mkdir(parents=True); p.touch()"


def test_a_machine_without_a_gpu_gets_the_small_pytorch_and_a_message_that_says_so(tmp_path):
    plan = make_plan(CPU, tmp_path / "env", ROOT, "python3")
    torch = next(step for step in plan.steps if "PyTorch" in step.title)
    assert plan.torch == "cpu" and "https://download.pytorch.org/whl/cpu" in torch.command
    assert not any("gsplat" in step.title for step in plan.steps)
    assert any("No NVIDIA GPU" in sentence for sentence in plan.messages) and plan.disk < 4


def test_every_step_installs_into_the_private_environment_and_only_from_the_locked_lists(tmp_path):
    plan = make_plan(CPU, tmp_path / "env", ROOT, "python3")
    assert plan.steps[0].command == ("python3", "-m", "venv", "--clear", str(tmp_path / "env"))
    assert all(step.command[0] == str(place.python_of(tmp_path / "env")) for step in plan.steps[1:])
    assert "--require-hashes" in plan.steps[1].command and plan.steps[1].packages > 30


def test_the_gigabytes_of_cuda_are_downloaded_only_where_the_gpu_could_be_used(tmp_path):
    without = replace(CPU, gpu=RTX)
    build, gsplat, why = choose_rasteriser(without, "2.13.0")
    assert build == "cpu" and not gsplat and "not built for Python 3.11" in why and "nvcc" in why
    plan = make_plan(replace(without, compiler=True), tmp_path, ROOT, "python3")
    assert plan.torch == "cu130" and plan.disk > 5
    (gsplat,) = [step for step in plan.steps if "gsplat" in step.title]
    assert gsplat.optional and str(ROOT / "requirements" / "cuda.lock") in gsplat.command


def test_a_wheel_of_gsplat_is_used_where_its_project_has_built_one():
    build, gsplat, _ = choose_rasteriser(Machine("Linux", (3, 10), replace(RTX, cuda=(13, 0)), False), "2.13.0")
    assert build == "cpu" and not gsplat
    from blender_addon.installation import plan

    wheels = plan.GSPLAT_WHEELS | {("Windows", (3, 11), "2.13", "cu130")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "GSPLAT_WHEELS", wheels)
        build, gsplat, _ = choose_rasteriser(Machine("Windows", (3, 11), RTX, False), "2.13.0")
    assert build == "cu130" and "https://docs.gsplat.studio/whl/pt213cu130" in gsplat


def test_an_old_driver_is_named_as_the_reason():
    build, _, why = choose_rasteriser(replace(CPU, gpu=Gpu("NVIDIA GTX 1060", (11, 8)), compiler=True), "2.13.0")
    assert build == "cpu" and "11.8" in why and "update the driver" in why


def test_the_gpu_is_read_from_what_the_driver_says(tmp_path, monkeypatch):
    said = "| NVIDIA-SMI 570.1 Driver Version: 570.1 CUDA Version: 12.8 |"
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncase \"$1\" in --query*) echo 'NVIDIA L4';; *) echo '{said}';; esac\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_gpu() == Gpu("NVIDIA L4", (12, 8))
    program.write_text("#!/bin/sh\nexit 9\n")
    assert find_gpu() is None


def test_too_little_disk_space_is_reported_before_anything_is_made(tmp_path):
    plan = replace(small_plan(tmp_path / "env", "raise SystemExit('ran')"), disk=1e9)
    installation = run(plan, tmp_path)
    assert installation.state == "failed" and "GB left" in installation.error and not (tmp_path / "env").exists()


def test_a_complete_installation_is_found_and_one_made_from_older_lists_is_outdated(tmp_path, monkeypatch):
    folder = tmp_path / "env"
    assert place.private_python(folder) is None
    installation = run(small_plan(folder, MAKE_PYTHON.format(str(place.python_of(folder)))), tmp_path)
    assert (installation.state, installation.share) == ("done", 1.0)
    assert place.private_python(folder) == place.python_of(folder)
    assert not place.is_outdated(folder, ROOT / "requirements")
    stamp = folder / place.STAMP
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"requirements": "older"}))
    assert place.is_outdated(folder, ROOT / "requirements")


def test_an_environment_whose_python_is_gone_is_not_used(tmp_path):
    folder = tmp_path / "env"
    run(small_plan(folder, MAKE_PYTHON.format(str(place.python_of(folder)))), tmp_path)
    place.python_of(folder).unlink()
    place.python_of(folder).symlink_to(tmp_path / "an older blender" / "python")
    assert place.private_python(folder) is None


def test_progress_follows_the_packages(tmp_path):
    code = "import time\nfor n in ('numpy', 'scipy', 'av'): print('Collecting', n + '==1', flush=True); time.sleep(0.2)"
    seen = []
    plan = small_plan(tmp_path / "env", "import os; os.makedirs('" + str(tmp_path / "env") + "')", code, packages=4)
    installation = Installation(plan, tmp_path / "install.log")
    installation.start()
    while not installation.finished:
        seen.append((round(installation.share, 3), installation.detail))
        time.sleep(0.02)
    shares = [share for share, _ in seen]
    assert shares == sorted(shares) and {"numpy", "scipy", "av"} <= {detail for _, detail in seen}
    assert "Collecting scipy==1" in (tmp_path / "install.log").read_text()


def test_a_failed_step_ends_the_installation_with_a_sentence_and_leaves_nothing_incomplete(tmp_path):
    folder = tmp_path / "env"
    fails = (
        "import sys; print('ERROR: Could not install packages due to an OSError: [Errno 28] No space left on "
        "device'); sys.exit(1)"
    )
    installation = run(
        small_plan(folder, MAKE_PYTHON.format(str(place.python_of(folder))), fails, "raise SystemExit"), tmp_path
    )
    assert installation.state == "failed" and "disk is full" in installation.error
    assert not folder.exists() and place.private_python(folder) is None


def test_the_users_python_variables_reach_no_command_of_an_installation(tmp_path, monkeypatch):
    for name in PYTHON_VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / "somewhere"))
    found = tmp_path / "found.json"
    code = (
        f"import json, os, pathlib; found = [name for name in {PYTHON_VARIABLES!r} if name in os.environ]; "
        f"pathlib.Path({str(found)!r}).write_text(json.dumps(found))"
    )
    folder = tmp_path / "env"
    run(small_plan(folder, MAKE_PYTHON.format(str(place.python_of(folder))), code), tmp_path)
    assert json.loads(found.read_text()) == []


def test_an_interpreter_is_checked_without_the_packages_of_the_users_pythonpath(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('a package from PYTHONPATH was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert check_interpreter(Path(sys.executable)).torch


def test_an_optional_step_may_fail(tmp_path):
    folder = tmp_path / "env"
    plan = small_plan(folder, MAKE_PYTHON.format(str(place.python_of(folder))), "raise SystemExit(1)")
    plan = replace(plan, steps=(plan.steps[0], replace(plan.steps[1], optional=True)))
    assert run(plan, tmp_path).state == "done"


def test_a_cancelled_installation_ends_at_once_together_with_its_child_processes(tmp_path):
    folder, alive = tmp_path / "env", tmp_path / "alive"
    grandchild = (
        f"import time, pathlib\nwhile True: pathlib.Path({str(alive)!r}).write_text(str(time.time())); time.sleep(0.05)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    installation = Installation(
        small_plan(folder, MAKE_PYTHON.format(str(place.python_of(folder))), code), tmp_path / "log"
    )
    installation.start()
    until = time.monotonic() + 10
    while not alive.exists() and time.monotonic() < until:
        time.sleep(0.02)
    started = time.monotonic()
    installation.cancel()
    installation.wait(10)
    assert installation.state == "cancelled" and time.monotonic() - started < 3 and not folder.exists()
    last = alive.read_text()
    time.sleep(0.3)
    assert alive.read_text() == last, "a program of the installation is still running"


def test_the_end_of_an_installation_is_reported_once(tmp_path):
    states, event = [], threading.Event()
    plan = small_plan(tmp_path / "env", "raise SystemExit(3)")
    Installation(plan, tmp_path / "log", lambda ended: (states.append(ended.state), event.set())).start()
    assert event.wait(10) and states == ["failed"]


@pytest.mark.parametrize(
    ("pip_says", "message"),
    [
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
            "ERROR: No matching distribution found "
            "for numpy",
            "network",
        ),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "hash differs"),
        ("The virtual environment was not created successfully because ensurepip is not available.", "python3-venv"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "read-only"),
        ("ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]", "certificates"),
        ("ERROR: something new", "something new"),
    ],
)
def test_the_cause_of_a_failure_is_reported_with_a_sentence(pip_says, message):
    sentence = installing.explain_failure(Step("Installing PyTorch", ()), pip_says.splitlines())
    assert message in sentence and "\n" not in sentence


def test_the_python_of_the_backend_is_accepted():
    found = check_interpreter(Path(sys.executable))
    assert (
        found.description.startswith(f"Python {sys.version_info.major}.{sys.version_info.minor}")
        and "PyTorch 2." in found.description
    )


def test_a_python_that_cannot_run_the_backend_is_refused_with_the_reason(tmp_path):
    def program(text: str) -> Path:
        path = tmp_path / f"python-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    old = json.dumps({"version": [3, 9, 2], "missing": [], "torch": "2.1"})
    bare = json.dumps({"version": [3, 11, 2], "missing": ["torch", "mediapipe"], "torch": None})
    for path, message in (
        (tmp_path / "nothing", "no Python at"),
        (tmp_path, "is a folder"),
        (program(f"echo '{old}'"), "is Python 3.9.2"),
        (program(f"echo '{bare}'"), "lacks torch, mediapipe"),
        (program("echo hello"), "not a working Python interpreter"),
    ):
        with pytest.raises(EffigyError, match=message):
            check_interpreter(path)
    text = tmp_path / "notes.txt"
    text.write_text("no program")
    with pytest.raises(EffigyError, match="could not be run"):
        check_interpreter(text)


def test_only_steps_that_install_packages_count_them_and_only_gsplat_is_optional(tmp_path):
    plan = make_plan(replace(CPU, gpu=RTX, compiler=True), tmp_path / "env", ROOT, "python3")
    counts = {step.title: step.packages for step in plan.steps}
    assert counts["Creating the environment"] == counts["Testing the backend"] == 0
    assert counts["Installing PyTorch"] > 1
    assert [step.title for step in plan.steps if step.optional] == ["Installing gsplat"]
