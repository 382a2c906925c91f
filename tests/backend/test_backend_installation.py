"""Installing the backend from Blender: its progress, cancellation, errors as sentences, and checking interpreters.

Plans are tested in `test_installation_plans`, installations with a real pip in `test_installation_faults`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.package_index import environments_in
from blender_addon import output_lock
from blender_addon.child_environment import PYTHON_VARIABLES
from blender_addon.errors import EffigyError
from blender_addon.installation import install, place
from blender_addon.installation.check import check_interpreter
from blender_addon.installation.failures import explain_failure
from blender_addon.installation.install import Installation
from blender_addon.installation.plan import Plan, Step

ROOT = Path(__file__).resolve().parents[2]


def small_plan(tmp_path: Path, *commands: str, download: int = 0) -> Plan:
    """A plan that runs small Python programs instead of venv and pip. `{python}` stands for the environment's."""
    environments = environments_in(tmp_path)
    folder = environments.fresh_folder()
    steps = tuple(
        Step(f"Step {number}", (sys.executable, "-c", code.replace("{python}", str(place.python_of(folder)))), download)
        for number, code in enumerate(commands, 1)
    )
    return Plan(environments, folder, ROOT / "requirements", steps, "cpu", 0, 0, ())


def run(plan: Plan, tmp_path: Path) -> Installation:
    installation = Installation(plan, tmp_path / "install.log")
    installation.start()
    installation.wait(20)
    return installation


MAKE_PYTHON = "import pathlib; p = pathlib.Path('{python}'); p.parent.mkdir(parents=True); p.touch()"


def test_too_little_disk_space_is_reported_before_anything_is_made(tmp_path):
    plan = replace(small_plan(tmp_path, "raise SystemExit('ran')"), disk=10**18)
    installation = run(plan, tmp_path)
    assert installation.state == "failed" and "GB left" in installation.error and not plan.folder.exists()


def test_a_machine_that_is_not_supported_is_refused_before_anything_is_made(tmp_path):
    plan = replace(small_plan(tmp_path, "raise SystemExit('ran')"), refusal="This is macOS 13: update macOS.")
    installation = run(plan, tmp_path)
    assert installation.error == "This is macOS 13: update macOS." and not plan.environments.root.exists()


def test_a_complete_installation_is_found_and_one_made_from_older_lists_is_outdated(tmp_path):
    environments = environments_in(tmp_path)
    assert environments.python() is None
    plan = small_plan(tmp_path, MAKE_PYTHON)
    installation = run(plan, tmp_path)
    assert (installation.state, installation.share) == ("done", 1.0)
    assert environments.python() == place.python_of(plan.folder)
    assert not place.is_outdated(plan.folder, ROOT / "requirements")
    stamp = plan.folder / place.STAMP
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"requirements": "older"}))
    assert place.is_outdated(plan.folder, ROOT / "requirements")


def test_an_environment_whose_python_is_gone_is_not_used(tmp_path):
    plan = small_plan(tmp_path, MAKE_PYTHON)
    run(plan, tmp_path)
    place.python_of(plan.folder).unlink()
    place.python_of(plan.folder).symlink_to(tmp_path / "an older blender" / "python")
    assert environments_in(tmp_path).python() is None and environments_in(tmp_path).current() == plan.folder


def test_progress_follows_the_downloaded_bytes(tmp_path):
    code = (
        "import time\n"
        "print('WARNING: Retrying (Retry(total=4)) after connection broken', flush=True); time.sleep(0.2)\n"
        "for name in ('open-head', 'torch'):\n"
        "    print('Collecting', name + '==1 (from -r a/list-1.lock)', flush=True)\n"
        "    for done in (0, 20, 40): print(f'Progress {done}000000 of 40000000', flush=True); time.sleep(0.1)"
    )
    seen = []
    plan = small_plan(tmp_path, MAKE_PYTHON, code, download=80_000_000)
    installation = Installation(plan, tmp_path / "install.log")
    installation.start()
    while not installation.finished:
        seen.append((round(installation.share, 3), installation.detail))
        time.sleep(0.02)
    shares = [share for share, _ in seen]
    told = {detail for _, detail in seen}
    assert shares == sorted(shares) and {"open-head, 20 of 40 MB", "torch, 40 of 40 MB"} <= told
    assert "no answer, trying again" in told
    # Two steps of equal size: the second one's downloads end at 0.5 + 0.5 * 0.9, and half of them at 0.725.
    assert {0.725, 0.95} <= set(shares)
    log = (tmp_path / "install.log").read_text()
    assert "Collecting torch==1" in log and "\nProgress" not in log


def test_a_failed_step_ends_the_installation_with_a_sentence_and_leaves_nothing_incomplete(tmp_path):
    fails = (
        "import sys; print('ERROR: Could not install packages due to an OSError: [Errno 28] No space left on "
        "device'); sys.exit(1)"
    )
    plan = small_plan(tmp_path, MAKE_PYTHON, fails, "raise SystemExit")
    installation = run(plan, tmp_path)
    assert installation.state == "failed" and "disk is full" in installation.error
    assert not plan.folder.exists() and environments_in(tmp_path).python() is None


def test_the_users_python_variables_reach_no_command_of_an_installation(tmp_path, monkeypatch):
    for name in PYTHON_VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / "somewhere"))
    found = tmp_path / "found.json"
    code = (
        f"import json, os, pathlib; found = [name for name in {PYTHON_VARIABLES!r} if name in os.environ]; "
        f"pathlib.Path({str(found)!r}).write_text(json.dumps(found))"
    )
    run(small_plan(tmp_path, MAKE_PYTHON, code), tmp_path)
    assert json.loads(found.read_text()) == []


def test_an_interpreter_is_checked_without_the_packages_of_the_users_pythonpath(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('a package from PYTHONPATH was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert check_interpreter(Path(sys.executable)).torch


def test_an_optional_step_may_fail(tmp_path):
    plan = small_plan(tmp_path, MAKE_PYTHON, "raise SystemExit(1)")
    plan = replace(plan, steps=(plan.steps[0], replace(plan.steps[1], optional=True)))
    installation = run(plan, tmp_path)
    assert installation.state == "done" and installation.notes == ["Step 2 failed; the backend works without it."]


def test_the_device_that_the_check_chose_is_reported_with_its_reason(tmp_path):
    says = (
        "What       State\nDisk       ok       75 GB free\n"
        "Training   ok       An avatar was trained for 2 steps and drawn on the device cpu. The GPU cannot be\n"
        "                    used."
    )
    installation = run(small_plan(tmp_path, MAKE_PYTHON, f"print({says!r})"), tmp_path)
    assert installation.state == "done" and installation.notes == [
        "An avatar was trained for 2 steps and drawn on the device cpu. The GPU cannot be used."
    ]


def test_a_cancelled_installation_ends_at_once_together_with_its_child_processes(tmp_path):
    alive = tmp_path / "alive"
    grandchild = (
        f"import time, pathlib\nwhile True: pathlib.Path({str(alive)!r}).write_text(str(time.time())); time.sleep(0.05)"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    plan = small_plan(tmp_path, MAKE_PYTHON, code)
    installation = Installation(plan, tmp_path / "log")
    installation.start()
    until = time.monotonic() + 10
    while not alive.exists() and time.monotonic() < until:
        time.sleep(0.02)
    started = time.monotonic()
    installation.cancel()
    installation.wait(10)
    assert installation.state == "cancelled" and time.monotonic() - started < 3 and not plan.folder.exists()
    last = alive.read_text()
    time.sleep(0.3)
    assert alive.read_text() == last, "a program of the installation is still running"


def test_a_defect_ends_the_installation_with_a_sentence(tmp_path, monkeypatch):
    def defective(*arguments):
        raise ValueError("not foreseen")

    monkeypatch.setattr(install, "write_stamp", defective)
    plan = small_plan(tmp_path, MAKE_PYTHON)
    installation = run(plan, tmp_path)
    assert installation.finished and "ValueError: not foreseen" in installation.error and not plan.folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every path is text")
def test_a_folder_whose_name_is_no_text_does_no_harm(tmp_path):
    plan = small_plan(tmp_path, MAKE_PYTHON)
    (step,) = plan.steps
    plan = replace(plan, steps=(replace(step, command=(*step.command, os.fsdecode(b"/home/caf\xe9"))),))
    assert run(plan, tmp_path).state == "done"


def test_no_step_starts_after_an_installation_was_cancelled(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    plan = small_plan(tmp_path, MAKE_PYTHON, f"open({str(ran)!r}, 'w')")
    installation = Installation(plan, tmp_path / "log")
    start = installation._start
    # The artist's click arrives between the look at the state and the start of the second step.
    monkeypatch.setattr(
        installation, "_start", lambda step: (step is plan.steps[1] and installation.cancel(), start(step))[1]
    )
    installation.start()
    installation.wait(10)
    assert installation.state == "cancelled" and not ran.exists()


POINTERS = {
    "damaged": "[" * 100_000,
    "not an object": "[]",
    "outside": '{"schema": 1, "environment": "../env-0000"}',
    "absolute": '{"schema": 1, "environment": "/env-0000"}',
    "with a line end": '{"schema": 1, "environment": "env-0000\\n"}',
}


@pytest.mark.parametrize("text", POINTERS.values(), ids=POINTERS)
def test_a_pointer_that_names_no_environment_of_the_folder_is_not_followed(tmp_path, text):
    environments = environments_in(tmp_path)
    for folder in (environments.root / "env-0000", environments.root.parent / "env-0000"):
        folder.mkdir(parents=True)
        place.write_stamp(folder, ROOT / "requirements", "cpu")
    (environments.root / "current.json").write_text(text)
    assert environments.current() is None


def test_nothing_is_removed_while_it_is_not_known_which_environment_is_used(tmp_path, monkeypatch):
    environments = environments_in(tmp_path)
    run(small_plan(tmp_path, MAKE_PYTHON), tmp_path)
    used = environments.current()
    (used / "pyvenv.cfg").touch()
    pointer = environments.root / "current.json"
    text = pointer.read_text()
    # A newer version's pointer, then a pointer and a stamp that a virus scanner has open.
    pointer.write_text(text.replace('"schema": 1', '"schema": 2'))
    environments.remove_unused()
    assert place.python_of(used).exists()
    pointer.write_text(text)
    read_text = Path.read_text
    for held in (pointer, used / place.STAMP):

        def read(path, *arguments, held=held):
            if path == held:
                raise PermissionError(13, "The process cannot access the file")
            return read_text(path, *arguments)

        monkeypatch.setattr(Path, "read_text", read)
        environments.remove_unused()
        assert place.python_of(used).exists()
    monkeypatch.setattr(Path, "read_text", read_text)
    assert environments.current() == used


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows, open files keep an environment")
def test_a_replaced_environment_on_a_network_drive_is_removed(tmp_path, monkeypatch):
    import fcntl

    flock = fcntl.flock

    def flock_of_nfs(file, operation):
        descriptor = file if isinstance(file, int) else file.fileno()
        if operation & fcntl.LOCK_EX and not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_RDWR:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    plans = [small_plan(tmp_path, MAKE_PYTHON) for _ in range(2)]
    for plan in plans:
        assert run(plan, tmp_path).error is None
        (plan.folder / "pyvenv.cfg").touch()
    environments = environments_in(tmp_path)
    environments.remove_unused()
    assert environments.current() == plans[1].folder and not plans[0].folder.exists()


def test_a_drive_without_locks_keeps_two_blenders_apart_all_the_same(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    environments = environments_in(tmp_path)
    with environments.locked():
        # For this process the lock is the same one again; another process has a table of its own.
        monkeypatch.setattr(output_lock, "_held", {})
        with (
            pytest.raises(EffigyError, match=r"Another Blender is installing .*process \d+ on "),
            environments.locked(),
        ):
            pass
        monkeypatch.undo()
    assert not (environments.root / "installation.lock").exists()


def test_the_end_of_an_installation_is_reported_once(tmp_path):
    states, event = [], threading.Event()
    plan = small_plan(tmp_path, "raise SystemExit(3)")
    Installation(plan, tmp_path / "log", lambda ended: (states.append(ended.state), event.set())).start()
    assert event.wait(10) and states == ["failed"]


@pytest.mark.parametrize(
    ("pip_says", "message"),
    [
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
            "ERROR: No matching distribution found for numpy",
            "network",
        ),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "hash differs"),
        ("/usr/bin/python3: No module named venv", "python3-venv"),
        ("PermissionError: [Errno 13] Permission denied: '/x'", "read-only"),
        ("PermissionError: [WinError 32] The process cannot access the file", "antivirus"),
        ("OSError: [WinError 225] the file contains a virus or potentially unwanted software", "antivirus"),
        ("ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]", "PIP_CERT"),
        ("WARNING: Retrying after connection broken by 'ProxyError('Cannot connect to proxy')'", "HTTPS_PROXY"),
        ("OSError: [Errno 2] No such file or directory. HINT: you do not have Windows Long Path support", "long paths"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("OSError: [WinError 126] The specified module could not be found. Error loading c10.dll", "Visual C++"),
        ("ERROR: Could not find a version that satisfies the requirement (from versions: none)", "macOS 14 or newer"),
        ("the wrong PyTorch was installed: 2.13.0, CUDA cpu instead of 13.0", "another build"),
        ("ERROR: something new", "something new"),
    ],
)
def test_the_cause_of_a_failure_is_reported_with_what_to_do(pip_says, message):
    sentence = explain_failure(Step("Installing PyTorch", ()), pip_says.splitlines())
    assert message in sentence and "\n" not in sentence


def test_a_step_that_the_system_ended_is_told_in_words():
    assert "memory ran out" in explain_failure(Step("Testing the backend", ()), ["Training …"], -9)


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
