"""A batch on a cluster, scheduled by Dask.distributed.

Every stage of every clip is one task, which waits for the task of the stage before it. Dask gives tasks to machines
that are free, and gives the work of a machine that was lost to another one, which finds on the shared disk what is
finished and goes on from a training's last checkpoint.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import cloudpickle

from ... import __version__
from ...errors import EffigyError
from . import machine
from .addresses import Address, SchedulerAddress, SlurmAddress, SshAddress
from .stage_run import FINISHED, Report, StageOrder, StageOutcome
from .stages import STAGES, TRAIN

# Dask declares its methods as coroutines, which they are for asynchronous clients only.
Client = Cluster = Future = Any

SECONDS_TO_CONNECT: Final = 15
SECONDS_IDLE: Final = 300
"""After so long without a task, a scheduler that a batch has started through SSH ends, and its workers with it: the
batch was killed, and could not end them."""
SECONDS_BETWEEN_COUNTS: Final = 5.0
RETRIES: Final = 2
"""How often a stage is tried again after an unforeseen exception. A lost machine does not count: Dask gives its tasks
to others as long as not more than `distributed.scheduler.allowed-failures` (3) machines were lost over one task."""
GPU: Final = "GPU"
"""Name of the resource that a worker with a GPU offers: `dask worker --resources "GPU=1"`."""
ROOT: Final = Path(__file__).resolve().parents[3]


class _ClipFuture:
    """What will come of a clip."""

    def __init__(self, future: Future) -> None:
        self._future = future

    def done(self) -> bool:
        return self._future.done()

    def result(self) -> StageOutcome:
        return pickle.loads(self._future.result())


class ClusterMachines:
    """Runs the stages of a batch on a cluster's machines. A context manager, which the cluster's client outlives."""

    def __init__(self, client: Client, batch: str, report: Report) -> None:
        self._client, self._batch = client, batch
        self._topic = f"effigy-{batch}"
        self._counted, self._slots = 0.0, 1
        self._futures: list[Future] = []
        client.subscribe_topic(self._topic, lambda event: report(event[1]))

    @property
    def at_once(self) -> int:
        """How many stages the cluster can run at the same time now; 0 while it has no machines."""
        now = time.monotonic()
        if now - self._counted > SECONDS_BETWEEN_COUNTS:
            self._counted = now
            with suppress(OSError, TimeoutError):
                self._slots = sum(self._client.nthreads().values())
        return self._slots

    def submit(self, orders: Sequence[StageOrder]) -> _ClipFuture:
        """Hand a clip's stages to Dask, each to begin when the one before it has ended."""
        task = machine.stage_task()
        before: Any = pickle.dumps(StageOutcome("", FINISHED))
        for order in orders:
            before = self._client.submit(
                task,
                pickle.dumps(order),
                before,
                self._topic,
                # Dask learns from the first part of the key how long such tasks take.
                key=(f"effigy-{order.stage}", self._batch, order.clip.name),
                # Clips that were begun are finished first.
                priority=STAGES.index(order.stage),
                resources={GPU: 1} if order.stage == TRAIN and order.clip.device == "cuda" else None,
                retries=RETRIES,
                pure=False,
            )
            self._futures.append(before)
        return _ClipFuture(before)

    def stop(self) -> None:
        """Ask the running stages to stop. What is finished is kept, and a training leaves its checkpoint."""
        self._client.run(machine.stop, self._batch, on_error="ignore")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError, TimeoutError, RuntimeError):
            if error:
                self.stop()
            self._client.unsubscribe_topic(self._topic)
            self._client.cancel(self._futures, force=True)


@contextmanager
def open_cluster(address: Address, machines: int, needs_gpu: bool, tell: Any) -> Iterator[Client]:
    """A client of the cluster at `address`, which is started where it does not run already, and ended afterwards.

    `machines`: how many machines can have something to do. `needs_gpu`: whether a clip asks for a GPU. `tell` shows a
    sentence to the user.
    """
    for name in ("distributed", "distributed.client", "tornado"):
        # What they log about a lost machine or scheduler is told by the table, in words.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with ExitStack() as stack:
        target: str | Cluster
        match address:
            case SchedulerAddress():
                target = address.url
            case SshAddress():
                target = stack.enter_context(_ssh_cluster(address, tell))
            case SlurmAddress():
                target = stack.enter_context(_slurm_cluster(address, machines, needs_gpu))
        try:
            from distributed import Client

            client = stack.enter_context(Client(target, timeout=SECONDS_TO_CONNECT, set_as_default=False))
        except (OSError, TimeoutError, ValueError) as error:
            raise EffigyError(f"There is no Dask scheduler that answers at {address.url}.") from error
        _prepare(client)
        yield client


def check_machines(client: Client, witness: Path, needs_gpu: bool, tell: Any) -> None:
    """Wait for the first machine; refuse a cluster whose machines cannot work on this batch."""
    if not client.nthreads():
        tell("The cluster has no machines yet: waiting for the first one.")
        while not client.nthreads():
            time.sleep(0.5)
    answers = client.run(machine.examine, str(witness), str(ROOT), __version__, on_error="return")
    for worker, answer in answers.items():
        if answer is not None:
            raise EffigyError(f"The machine {worker} of the cluster {answer}.")
    if needs_gpu and not any(
        info["resources"].get(GPU) for info in client.scheduler_info(n_workers=-1)["workers"].values()
    ):
        raise EffigyError(
            "The sheet asks for a GPU (device cuda), but no machine of the cluster offers one: start a worker with "
            '--resources "GPU=1", or write auto or cpu.'
        )


def _prepare(client: Client) -> None:
    # The workers cannot import it yet.
    cloudpickle.register_pickle_by_value(machine)
    client.register_plugin(machine.EffigyOnWorker(str(ROOT)))


def _ssh_cluster(address: SshAddress, tell: Any) -> Cluster:
    """A scheduler on the first machine that answers and a worker on each, started through SSH."""
    import asyncio
    import sys

    import asyncssh
    from distributed.deploy.spec import SpecCluster
    from distributed.deploy.ssh import Scheduler, Worker

    async def reason_against(options: dict[str, Any]) -> str | None:
        try:
            async with asyncssh.connect(**options, login_timeout=SECONDS_TO_CONNECT):
                return None
        except (OSError, asyncssh.Error, TimeoutError) as error:
            return str(error) or type(error).__name__

    async def reasons() -> list[str | None]:
        return await asyncio.gather(*(reason_against(host.connect_options) for host in address.hosts))

    hosts = []
    for host, reason in zip(address.hosts, asyncio.run(reasons()), strict=True):
        if reason is None:
            hosts.append(host)
        else:
            tell(f"The machine {host.name} cannot be used ({reason}).")
    if not hosts:
        raise EffigyError(f"None of the machines of {address.url} can be reached by SSH with a key.")

    def process(kind: type, host: Any, **options: Any) -> dict[str, Any]:
        connect_options = dict(host.connect_options)
        return {
            "cls": kind,
            "options": {
                "address": connect_options.pop("host"),
                "connect_options": connect_options,
                "remote_python": host.python or sys.executable,
                **options,
            },
        }

    workers = {
        number: process(
            Worker,
            host,
            worker_class="distributed.Nanny",
            # One clip at a time, which gets all cores of the machine. A worker that has not found its scheduler before
            # this one ended would look for it for ever.
            kwargs={
                "nthreads": 1,
                "dashboard_address": None,
                "death_timeout": SECONDS_IDLE,
                "resources": {GPU: 1} if host.gpu else {},
            },
        )
        for number, host in enumerate(hosts)
    }
    scheduler = process(Scheduler, hosts[0], kwargs={"port": 0, "dashboard": False, "idle_timeout": SECONDS_IDLE})
    try:
        return SpecCluster(workers, scheduler, name="effigy")
    except Exception as error:
        # Dask passes on what the machines printed as plain exceptions.
        raise EffigyError(
            f"No Dask scheduler could be started on {hosts[0].name} by SSH ({error}): the same Python as here, with "
            "Effigy's packages and Dask, must be at the same path there, or be named in the list of machines."
        ) from error


def _slurm_cluster(address: SlurmAddress, machines: int, needs_gpu: bool) -> Cluster:
    from dask_jobqueue.slurm import SLURMCluster

    cluster = SLURMCluster(**address.cluster_options(needs_gpu))
    cluster.scale(jobs=min(machines, address.jobs or machines))
    return cluster
