"""Installations that fail: the backend that was installed before works as it did, and nothing of the failed one stays.

venv, pip, the installer and the package index are real; only the packages are tiny (`bench.package_index`).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backend.service.held_environment import STAMP
from bench.package_index import PackageIndex, environments_in, make_extension, pip_uses
from blender_addon import child_process
from blender_addon.installation import place
from blender_addon.installation.gpu import Gpu
from blender_addon.installation.install import Installation
from blender_addon.installation.machine import Machine
from blender_addon.installation.place import Environments
from blender_addon.installation.plan import RUN_MODULE, make_plan

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (sys.version_info.major, sys.version_info.minor)
CPU = Machine("Linux", PYTHON)
GPU = Machine("Linux", PYTHON, Gpu("NVIDIA GeForce RTX 4060", (610, 43), (8, 9), (13, 3)))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the plans of the tests are those for Linux")


@pytest.fixture(scope="module")
def installed_once(tmp_path_factory) -> Path:
    """A folder with version 1.0 installed, its wheels in `wheels`, and the extensions of versions 1.0 and 2.0."""
    folder = tmp_path_factory.mktemp("installed")
    make_extension(folder / "1.0", folder / "wheels", "1.0")
    make_extension(folder / "2.0", folder / "wheels", "2.0")
    index = PackageIndex(folder / "wheels")
    with pip_uses(index):
        assert install(folder, "1.0").error is None
    index.close()
    return folder


@pytest.fixture
def folder(installed_once, tmp_path) -> Path:
    """A copy of `installed_once`. A test installs version 2.0 there."""
    return shutil.copytree(installed_once, tmp_path / "copy", symlinks=True)


@pytest.fixture
def index(folder) -> Iterator[PackageIndex]:
    index = PackageIndex(folder / "wheels")
    with pip_uses(index):
        yield index
    index.close()


def install(folder: Path, version: str = "2.0", machine: Machine = CPU) -> Installation:
    plan = make_plan(machine, environments_in(folder), folder / version, sys.executable)
    installation = Installation(plan, folder / "install.log")
    installation.start()
    installation.wait(60)
    return installation


def version_in(environments: Environments) -> str:
    """What the environment that is used really imports."""
    python = environments.python()
    assert python is not None, "no backend is installed any more"
    command = [str(python), "-c", "import effigy_part_0, effigy_part_2, torch; print(effigy_part_0.VERSION)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def assert_only_the_old_one_is_there(folder: Path) -> None:
    environments = environments_in(folder)
    assert version_in(environments) == "1.0"
    left = {entry.name for entry in environments.root.iterdir()} - {"downloads", "installation.lock"}
    assert left == {"current.json", environments.current().name}


def test_a_new_backend_takes_the_place_of_the_old_one_when_it_is_complete(folder, index):
    old = environments_in(folder).current()
    installation = install(folder)
    assert installation.error is None and installation.notes == [
        "An avatar was trained for 2 steps and drawn on the device cpu."
    ]
    environments = environments_in(folder)
    assert version_in(environments) == "2.0" and not old.exists()
    # Extras, as for `batch --cluster`, are added with it.
    pip = subprocess.run([str(environments.python()), "-m", "pip", "--version"], capture_output=True, text=True)
    assert pip.stdout.startswith("pip 26.3")
    assert {entry.name for entry in environments.root.iterdir()} == {"current.json", environments.current().name}


def test_settings_of_the_users_pip_lead_no_package_elsewhere(folder, index, monkeypatch, tmp_path):
    (tmp_path / "pip.conf").write_text("[install]\nuser = true\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    for name in ("target", "prefix", "root"):
        monkeypatch.setenv(f"PIP_{name.upper()}", str(tmp_path / name))
    assert install(folder).error is None and version_in(environments_in(folder)) == "2.0"
    assert not any((tmp_path / name).exists() for name in ("target", "prefix", "root"))


def test_without_a_network_the_old_backend_stays(folder, index):
    index.close()
    installation = install(folder)
    assert installation.state == "failed" and "could not be reached" in installation.error
    assert "The backend that was installed before still works." in installation.error
    assert_only_the_old_one_is_there(folder)


def test_a_connection_that_keeps_breaking_leaves_the_old_backend(folder, index):
    index.breaks = 1000
    installation = install(folder)
    assert installation.state == "failed" and "the connection broke" in installation.error
    assert_only_the_old_one_is_there(folder)


def test_a_download_that_breaks_off_is_resumed_where_it_broke(folder, index):
    index.breaks = 2
    assert install(folder).error is None
    assert version_in(environments_in(folder)) == "2.0"
    resumed = [wanted for path, wanted in index.requests if path.endswith(".whl") and wanted]
    assert resumed and not any(wanted.startswith("bytes=0-") for wanted in resumed)


def test_what_was_downloaded_before_the_network_went_is_not_downloaded_again(folder, index):
    index.closed_after = "effigy_part_2"
    installation = install(folder)
    assert installation.state == "failed" and "PyTorch's index" in installation.error
    assert_only_the_old_one_is_there(folder)
    index.closed_after = None
    index.requests.clear()
    assert install(folder).error is None
    again = [path for path, _ in index.requests if path.endswith(".whl")]
    assert [path for path in again if "effigy_part" in path] == [] and any("torch" in path for path in again)


@pytest.fixture
def small_disk(folder, tmp_path) -> Iterator[Path]:
    """A copy of `folder` on a file system of 80 MB in memory."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(mounted)], capture_output=True
    ).returncode:
        pytest.skip("a file system can be mounted only by root")
    try:
        yield shutil.copytree(folder, mounted / "copy", symlinks=True, ignore=shutil.ignore_patterns("wheels"))
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


@pytest.mark.parametrize("free", [1_500_000, 8_000_000], ids=["while downloading", "while unpacking"])
def test_a_full_disk_leaves_the_old_backend(small_disk, index, free):
    filling = small_disk / "filling"
    filling.write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
    plan = make_plan(CPU, environments_in(small_disk), small_disk / "2.0", sys.executable)
    # The sizes in the plan would refuse this disk before the installation starts.
    installation = Installation(replace(plan, disk=0), small_disk / "install.log")
    installation.start()
    installation.wait(60)
    assert installation.state == "failed" and "disk is full" in installation.error
    filling.unlink()
    assert_only_the_old_one_is_there(small_disk)
    assert install(small_disk).error is None and version_in(environments_in(small_disk)) == "2.0"


def test_an_index_that_serves_another_file_is_refused(folder, index):
    index.other_bytes = True
    installation = install(folder)
    assert installation.state == "failed" and "hash differs" in installation.error
    assert_only_the_old_one_is_there(folder)


def test_a_backend_that_fails_its_check_is_not_used(folder, index):
    (folder / "2.0" / "backend" / "__main__.py").write_text("raise SystemExit('ERROR: the CPU draws a wrong picture')")
    installation = install(folder)
    assert installation.state == "failed" and "the CPU draws a wrong picture" in installation.error
    assert_only_the_old_one_is_there(folder)


def test_a_cpu_build_never_passes_for_a_cuda_build(folder, index):
    # On Linux the hash decides: another build under the same name has another hash.
    assert install(folder, machine=GPU).error is None
    # On Windows the build's tag decides. The tag is in the version, and PyTorch itself is asked as well.
    plan = make_plan(
        Machine("Windows", PYTHON, GPU.gpu, long_paths=True), environments_in(folder), folder / "2.0", sys.executable
    )
    (pytorch,) = [step for step in plan.steps if step.title == "Installing PyTorch"]
    place_of_tag = pytorch.command.index("torch==2.13.0+cu130")
    assert pytorch.command[place_of_tag - 2 : place_of_tag] == ("--index-url", f"{index.url}/whl/cu130")
    python = environments_in(folder).python()
    shutil.rmtree(folder / "wheels" / "cu130")
    shutil.copytree(folder / "wheels" / "simple", folder / "wheels" / "cu130")
    pip = child_process.start([str(python), *pytorch.command[1:], "--force-reinstall"], text=True)
    # The pipe to pip's stdin stays open until pip has ended.
    said = pip.stderr.read()
    assert pip.wait() and "No matching distribution" in said
    (checking,) = [step for step in plan.steps if step.title == "Checking PyTorch"]
    torch = next((python.parents[1]).rglob("torch/__init__.py"))
    torch.write_text(torch.read_text().replace("'13.0'", "None"))
    checked = subprocess.run([str(python), *checking.command[1:]], capture_output=True, text=True)
    assert checked.returncode and "the wrong PyTorch was installed" in checked.stderr


def start_installer(folder: Path) -> subprocess.Popen[str]:
    """An installer in a process of its own, as a second Blender has it."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); "
        "from blender_addon.installation import plan; plan.TORCH_INDEX = sys.argv[3]; "
        "from tests.backend.test_installation_faults import install; print(install(Path(sys.argv[1])).error)"
    )
    torch_index = os.environ["PIP_INDEX_URL"].replace("/simple", "/whl")
    command = [sys.executable, "-c", code, str(folder), str(ROOT), torch_index]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(condition, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_step_that_prints_nothing_ends_with_the_process_that_started_it(tmp_path):
    (tmp_path / "silent.py").write_text("import time; print('started', flush=True); time.sleep(60)")
    step = child_process.start([sys.executable, str(RUN_MODULE), "no wheel", "silent"], tmp_path, text=True)
    assert step.stdout.readline() == "started\n"
    # As the system does when the starting process is killed.
    step.stdin.close()
    assert step.wait(10) == 1


def test_a_step_can_look_at_its_stdin_while_the_pipe_is_watched(tmp_path):
    # On Windows every access to a pipe waits for the thread that reads it, and numpy looks at file descriptor 0.
    (tmp_path / "looks.py").write_text("import os; print(os.path.samestat(os.fstat(0), os.stat(os.devnull)))")
    step = child_process.start([sys.executable, str(RUN_MODULE), "no wheel", "looks"], tmp_path, text=True)
    assert step.stdout.readline() == "True\n"
    step.communicate()


def test_two_blenders_do_not_install_at_once(folder, index):
    index.pause = 0.02
    first = start_installer(folder)
    wait_for(lambda: any(path.endswith(".whl") for path, _ in index.requests))
    second = install(folder)
    assert second.state == "failed" and "Another Blender is installing" in second.error
    assert version_in(environments_in(folder)) == "1.0"
    assert first.communicate(timeout=60)[0].strip() == "None"
    assert version_in(environments_in(folder)) == "2.0"


def test_a_killed_installer_leaves_the_old_backend_and_the_next_one_removes_its_files(folder, index):
    index.pause = 0.02
    killed = start_installer(folder)
    wait_for(lambda: any(path.endswith(".whl") for path, _ in index.requests))
    time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    environments = environments_in(folder)
    assert version_in(environments) == "1.0"
    incomplete = [entry for entry in environments.root.glob("env-*") if entry != environments.current()]
    assert len(incomplete) == 1
    # pip ends with the installer, or else it would go on downloading.
    asked = len(index.requests)
    time.sleep(0.5)
    assert len(index.requests) == asked
    index.pause = 0.0
    assert install(folder).error is None
    assert version_in(environments) == "2.0" and not incomplete[0].exists()


def test_a_cancelled_installation_leaves_the_old_backend(folder, index):
    index.pause = 0.02
    plan = make_plan(CPU, environments_in(folder), folder / "2.0", sys.executable)
    installation = Installation(plan, folder / "install.log")
    installation.start()
    wait_for(lambda: any(path.endswith(".whl") for path, _ in index.requests))
    installation.cancel()
    installation.wait(10)
    assert installation.state == "cancelled" and "still works" in installation.error
    assert_only_the_old_one_is_there(folder)


def test_an_environment_in_which_a_worker_runs_is_kept_until_it_has_ended(folder, index):
    environments = environments_in(folder)
    old = environments.current()
    code = "import sys; from backend.service.held_environment import hold_environment as hold; hold(); input()"
    worker = subprocess.Popen(
        [str(environments.python()), "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    wait_for(lambda: place._is_held(old))
    assert install(folder).error is None
    assert version_in(environments) == "2.0" and (old / STAMP).exists()
    worker.communicate(b"\n")
    with environments.locked():
        environments.remove_unused()
    assert not old.exists() and version_in(environments) == "2.0"


def test_a_worker_holds_its_environment_before_it_loads_anything_else():
    code = (
        "import runpy, sys; from backend.service import held_environment\n"
        "held_environment.hold_environment = lambda: print('backend.service.cli' in sys.modules, flush=True)\n"
        "sys.argv = ['backend', '--help']; runpy.run_module('backend', run_name='__main__')"
    )
    started = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert started.stdout.startswith("False\n"), started.stdout + started.stderr


def test_the_environment_of_an_earlier_version_is_used_until_it_is_replaced(folder, index):
    environments = environments_in(folder)
    environments.current().rename(environments.former)
    (environments.root / "current.json").unlink()
    assert environments.current() == environments.former and version_in(environments) == "1.0"
    index.other_bytes = True
    assert install(folder).state == "failed" and version_in(environments) == "1.0"
    index.other_bytes = False
    assert install(folder).error is None
    assert version_in(environments) == "2.0" and not environments.former.exists()


def test_only_folders_that_an_installation_made_are_removed(folder, tmp_path):
    environments = environments_in(folder)
    mine = [environments.root / name for name in ("env-0000", "env-new", "notes")]
    for path in mine:
        path.mkdir()
        (path / "diary.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "pyvenv.cfg").touch()
    shutil.copyfile(environments.current() / STAMP, tmp_path / "elsewhere" / STAMP)
    (environments.root / "env-1111").symlink_to(tmp_path / "elsewhere")
    (environments.root / "current.json").write_text('{"schema": 1, "environment": "../../elsewhere"}')
    assert environments.current() is None
    with environments.locked():
        environments.remove_unused()
    assert all((path / "diary.txt").exists() for path in mine) and (tmp_path / "elsewhere" / "pyvenv.cfg").exists()


def test_the_lock_ends_with_the_process_that_holds_it(tmp_path):
    environments = environments_in(tmp_path)
    code = (
        "import sys, os; from pathlib import Path; from bench.package_index import environments_in\n"
        "with environments_in(Path(sys.argv[1])).locked(): print('locked', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"locked\n"
    with pytest.raises(Exception, match="Another Blender is installing"), environments.locked():
        pass
    holder.kill()
    holder.communicate()
    with environments.locked():
        pass
