"""A batch on a real Dask scheduler with two workers on loopback; and what a cluster's addresses may be."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="Dask is not installed (requirements/batch.lock)")

from dask_cluster import dask_cluster, start_worker
from dask_jobqueue.slurm import SLURMCluster
from distributed import Client
from small_capture import make_small_capture
from worker_sessions import children_of, runs

from backend.errors import EffigyError
from backend.service.batch import addresses, cluster
from backend.service.batch.addresses import SchedulerAddress, read_address
from backend.service.batch.cluster import check_machines, open_cluster
from backend.service.batch.stages import ClipFiles
from backend.service.cli import main
from backend.splatting.jit import cache_folder

ROOT = Path(__file__).resolve().parents[2]
WORKING = ("Warming up", "Training")
"""Parts of a training."""


def start_batch(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "backend", "batch", "shots.csv", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition, seconds: float = 60):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def events_of(client: Client, folder: Path) -> list[dict[str, Any]]:
    """What the stages of the running batch have reported so far."""
    witnesses = list(folder.glob(".batch-*"))
    events = client.get_events(f"effigy-{witnesses[0].name.removeprefix('.batch-')}") if witnesses else ()
    return [event for _, event in events]


def test_the_work_of_a_machine_that_is_lost_in_a_training_is_done_on_another_one(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    make_small_capture(tmp_path, frames=10)
    (tmp_path / "shots.csv").write_text(
        "name,capture,minutes,evaluate\nanna,ball.capture,0.08,no\nben,ball.capture,0.08,no\n"
    )
    out = tmp_path / "shots"
    with dask_cluster(tmp_path, "first", "second") as (url, workers), Client(url) as client:
        batch = start_batch(tmp_path, "--cluster", url)
        wait_until(
            lambda: any(event["clip"] == "anna" and event.get("stage") in WORKING for event in events_of(client, out))
        )
        name_of = {address: info["name"] for address, info in client.scheduler_info()["workers"].items()}
        (lost,) = [
            name_of[address]
            for address, keys in client.processing().items()
            if any(key[0] == "effigy-train" and key[2] == "anna" for key in keys)
        ]
        # The worker is one process: this is the loss of a machine, except that its stage ends by itself.
        workers[lost].kill()
        begun = []

        def anna_was_begun_again() -> bool:
            nonlocal begun
            events = events_of(client, out)
            begun = [e["clip"] for e in events if e["batch_stage"] == "train" and not e.keys() & {"stage", "state"}]
            return begun.count("anna") == 2

        wait_until(anna_was_begun_again)
        output, errors = batch.communicate(timeout=120)
    assert batch.returncode == 0, errors
    assert begun.count("ben") == 1
    rows = json.loads((out / "batch.json").read_text())["clips"]
    assert [(row["clip"], row["state"], row["tracked"]) for row in rows] == [("anna", "done", 10), ("ben", "done", 10)]
    assert "anna" in output and "2 clips, 0 of them not done" in output
    assert all((out / name / f"{name}.effigy").is_file() for name in ("anna", "ben"))


def test_the_training_of_a_batch_that_was_killed_stops_on_its_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    make_small_capture(tmp_path, frames=10)
    (tmp_path / "shots.csv").write_text("name,capture,minutes,evaluate\nanna,ball.capture,9,no\n")
    files = ClipFiles(tmp_path / "shots" / "anna")
    with dask_cluster(tmp_path, "only") as (url, _), Client(url) as client:
        batch = start_batch(tmp_path, "--cluster", url)
        wait_until(lambda: any(event.get("stage") in WORKING for event in events_of(client, tmp_path / "shots")))
        batch.kill()
        batch.communicate()
        attempt = files.stamp("train.attempt")
        wait_until(lambda: json.loads(attempt.read_text())["seconds"] > 0, 30)
    assert not files.avatar.exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_cluster_of_these_tests_ends_when_the_tests_are_killed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from dask_cluster import dask_cluster\n"
        "with dask_cluster(Path(sys.argv[1]), 'first', 'second') as (url, _): print(url, flush=True); time.sleep(60)"
    )
    tests = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    url = tests.stdout.readline().strip()
    with Client(url, timeout=30) as client:
        client.wait_for_workers(2, timeout=60)
    pids = children_of(tests.pid)
    assert len(pids) == 3
    tests.kill()
    tests.wait()
    wait_until(lambda: not any(map(runs, pids)), 10)


# --- addresses


def test_the_forms_of_an_address(tmp_path):
    assert read_address("tcp://render:8786") == SchedulerAddress("tcp://render:8786")
    hosts = read_address("ssh://anna@render01:2222,render02").hosts
    assert [host.connect_options for host in hosts] == [
        {"host": "render01", "username": "anna", "port": 2222},
        {"host": "render02"},
    ]
    (tmp_path / "hosts.txt").write_text("# the farm\nrender01 gpu\n\nrender02 python=/opt/python  # the new one\n")
    first, second = read_address(f"ssh:{tmp_path / 'hosts.txt'}").hosts
    assert (first.name, first.gpu, first.python) == ("render01", True, None)
    assert (second.name, second.gpu, second.python) == ("render02", False, "/opt/python")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("render:8786", "cluster must be tcp://host:port"),
        ("tcp://render", "cluster must be tcp://host:port"),
        ("http://render:8786", "cluster must be tcp://host:port"),
        ("ssh:", "cluster must be tcp://host:port"),
        ("ssh://", "names no machines"),
        ("ssh://-oProxyCommand=x", "is no machine's name"),
        ("ssh://render01,a b", "is neither gpu nor python=PATH"),
        ("slurm:options.yaml", "there is no option “queues”"),
    ],
)
def test_a_wrong_address_is_refused_with_a_sentence(tmp_path, monkeypatch, address, sentence):
    monkeypatch.chdir(tmp_path)
    Path("options.yaml").write_text("queues: render\n")
    with pytest.raises(EffigyError, match=sentence) as refusal:
        read_address(address)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a\n", "one option a line"),
        ("a: [\n", "no YAML that can be read"),
        ("cores: 4\n", "needs the option memory"),
        ("cores: four\nmemory: 4GB\n", "cores cannot be “four”"),
        ("cores: 0\nmemory: 4GB\n", "cores and jobs must be 1 or more"),
        ("!!python/object/apply:os.system [touch ran]\n", "no YAML that can be read"),
    ],
)
def test_wrong_options_of_slurm_are_refused_with_a_sentence(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    Path("options.yaml").write_text(text)
    with pytest.raises(EffigyError, match=sentence):
        read_address("slurm:options.yaml")
    assert not Path("ran").exists()


def test_without_dask_a_sentence_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(addresses.importlib.util, "find_spec", lambda name: None)
    for address in ("tcp://render:8786", "ssh://render01", "slurm:options.yaml"):
        with pytest.raises(EffigyError, match="needs Dask, .* install it with `.* -m pip install .*batch.lock`"):
            read_address(address)


def test_a_slurm_job_requests_what_one_clip_needs(tmp_path):
    (tmp_path / "options.yaml").write_text(
        "queue: render\naccount: show42\ncores: 6\nmemory: 5GB\nwalltime: '03:00:00'\njobs: 3\n"
        "scheduler_options: {host: 127.0.0.1}\njob_extra_directives: ['--gres=gpu:1']\n"
        "job_script_prologue: ['module load cuda']\n"
    )
    address = read_address(f"slurm:{tmp_path / 'options.yaml'}")
    with SLURMCluster(**address.cluster_options(needs_gpu=True)) as slurm:
        script = slurm.job_script()
    directives = {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert {"-p render", "-A show42", "-n 1", "--cpus-per-task=6", "-t 03:00:00", "--gres=gpu:1"} <= directives
    assert any(re.fullmatch(r"--mem=[45]G", directive) for directive in directives), directives
    assert "module load cuda" in script.splitlines()
    (command,) = (line for line in script.splitlines() if "distributed.cli.dask_worker" in line)
    # One clip at a time, for which the batch takes all cores of the job.
    assert command.startswith(sys.executable) and "--nthreads 1 " in command and "--nworkers" not in command
    assert command.endswith("--resources GPU=1")
    assert address.jobs == 3 and "--resources" not in str(address.cluster_options(needs_gpu=False))


def test_a_gpu_that_no_slurm_job_would_get_is_refused(tmp_path):
    (tmp_path / "options.yaml").write_text("cores: 4\nmemory: 4GB\n")
    with pytest.raises(EffigyError, match="requests none: add “--gres=gpu:1”"):
        read_address(f"slurm:{tmp_path / 'options.yaml'}").cluster_options(needs_gpu=True)


# --- machines that cannot work


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "SECONDS_TO_CONNECT", 1)
    (tmp_path / "anna.mp4").touch()
    (tmp_path / "shots.csv").write_text("footage\nanna.mp4\n")
    assert main(["batch", str(tmp_path / "shots.csv"), "--cluster", "tcp://127.0.0.1:9"]) == 2
    error = capsys.readouterr().err
    assert "no Dask scheduler that answers at tcp://127.0.0.1:9" in error and len(error.splitlines()) == 1
    assert not list((tmp_path / "shots").iterdir())


def test_machines_without_a_gpu_or_without_the_folder_are_refused_before_any_work(tmp_path):
    (tmp_path / "witness").touch()
    with (
        dask_cluster(tmp_path, "first") as (url, workers),
        open_cluster(SchedulerAddress(url), 1, True, print) as client,
    ):
        check_machines(client, tmp_path / "witness", False, print)
        with pytest.raises(EffigyError, match="asks for a GPU .* no machine of the cluster offers one"):
            check_machines(client, tmp_path / "witness", True, print)
        with pytest.raises(EffigyError, match="does not see the folder .* under the same path"):
            check_machines(client, tmp_path / "gone" / "witness", False, print)
        workers["second"] = start_worker(url, "second", tmp_path, "--resources", "GPU=1")
        client.wait_for_workers(2, timeout=60)
        check_machines(client, tmp_path / "witness", True, print)


@pytest.fixture
def ssh_host(tmp_path, monkeypatch) -> str:
    """`127.0.0.1:port` of a real sshd with a throwaway key, which the configuration in a home of its own names."""
    sshd, home = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"), tmp_path / "home"
    if not sshd or not shutil.which("ssh-keygen"):
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder = home / ".ssh"
    folder.mkdir(parents=True)
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"Host 127.0.0.1\n  IdentityFile {folder}/key\n  UserKnownHostsFile {folder}/known_hosts\n"
    )
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/key.pub\n"
        # Compiled kernels are kept below the home folder otherwise, and compiling them takes half a minute.
        f"SetEnv EFFIGY_USER={tmp_path / 'user'} NUMBA_CACHE_DIR={cache_folder().parent}\n"
        "PidFile none\nUsePAM no\nStrictModes no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    server = subprocess.Popen([sshd, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=subprocess.DEVNULL)
    monkeypatch.setenv("HOME", str(home))
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait(10)


def test_machines_that_ssh_reaches_work_on_a_batch_and_one_that_does_not_answer_is_left_out(
    tmp_path, monkeypatch, ssh_host
):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    make_small_capture(tmp_path, frames=10)
    (tmp_path / "shots.csv").write_text("name,capture,minutes,evaluate\nanna,ball.capture,0.02,no\n")
    (tmp_path / "hosts.txt").write_text(f"127.0.0.1:9\n{ssh_host}\n")
    batch = start_batch(tmp_path, "--cluster", "ssh:hosts.txt")
    output, errors = batch.communicate(timeout=150)
    assert batch.returncode == 0, output + errors
    assert "The machine 127.0.0.1:9 cannot be used" in output and "1 clips, 0 of them not done" in output
    assert (tmp_path / "shots" / "anna" / "anna.effigy").is_file() and not errors


OPEN_AND_WAIT = """
import sys, time
from backend.service.batch import cluster
from backend.service.batch.addresses import read_address
cluster.SECONDS_IDLE = 20
with cluster._ssh_cluster(read_address(sys.argv[1]), print) as machines:
    print(machines.scheduler_address, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_what_a_batch_has_started_through_ssh_ends_although_the_batch_was_killed(ssh_host):
    batch = subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_WAIT, f"ssh://{ssh_host}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    url = batch.stdout.readline().strip()
    host, port = url.removeprefix("tcp://").split(":")

    def is_there() -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            # A process may have ended since it was listed.
            with suppress(OSError):
                if url in path.read_text(errors="replace"):
                    return True
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    assert is_there()
    batch.kill()
    batch.wait()
    wait_until(lambda: not is_there(), 120)
