"""Starts the processes of a training or evaluation.

GPUs go through Detectron2's launcher. It assumes CUDA, so processes on the CPU are spawned here
with the gloo backend; everything after that, gradients included, is torch's DistributedDataParallel
in both cases.
"""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

import face_d2.register  # isort: skip  (spawned workers import this module first)
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch as detectron2_launch

from face_d2 import compat
from face_d2.plugins import import_detectors

__all__ = ["LaunchSettings", "launch", "leave_process_groups"]

_TIMEOUT = timedelta(minutes=30)


class LaunchSettings(Protocol):
    """Which processes to start; the names are those of Detectron2's flags.

    Attributes:
        num_gpus: GPUs per machine, a process each; 0 for the CPU.
        num_processes: processes per machine on the CPU.
        num_machines: machines.
        machine_rank: which of them this is, from 0.
        dist_url: tcp://HOST:PORT of the first machine; "auto" on a single one.
    """

    num_gpus: int
    num_processes: int
    num_machines: int
    machine_rank: int
    dist_url: str


def launch(main: Callable[..., Any], args: LaunchSettings) -> None:
    """Calls ``main(args)`` in every process.

    When one of them raises or is killed, the others on its machine are ended and its traceback, or
    the signal, is raised here; those on other machines see the connection close.

    Args:
        main: the work; must be importable by name in a spawned process.
        args: which processes to start, and whatever else ``main`` needs; sent to every process.

    Raises:
        SystemExit: when GPUs are asked for and there are not as many, or ``--num-processes`` is
            given with GPUs.
    """
    if args.num_gpus > 0:
        available = torch.cuda.device_count()
        if args.num_processes > 1:
            raise SystemExit("--num-processes is for the CPU; add --num-gpus 0.")
        if args.num_gpus > available:
            raise SystemExit(
                f"--num-gpus {args.num_gpus}, but {available} CUDA devices are available; "
                "use --num-gpus 0 to run on the CPU."
            )
        detectron2_launch(
            _work_and_leave,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )
        return
    if args.num_processes * args.num_machines == 1:
        main(args)
        return
    url = args.dist_url
    if url == "auto":
        if args.num_machines > 1:
            raise SystemExit("--num-machines needs --dist-url tcp://HOST:PORT of the first one.")
        url = f"tcp://127.0.0.1:{_free_port()}"
    # The cores are shared out; without this every process would ask for all of them.
    threads = max(torch.get_num_threads() // args.num_processes, 1)
    mp.spawn(_cpu_worker, nprocs=args.num_processes, args=(main, args, url, threads))


def _cpu_worker(
    local_rank: int, main: Callable[..., Any], args: LaunchSettings, url: str, threads: int
) -> None:
    # The parent's death reaches this process as SIGINT. Python would answer it only when the wait
    # for the other processes is over, the system answers at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import_detectors()
    torch.set_num_threads(threads)
    dist.init_process_group(
        backend="gloo",
        init_method=url,
        world_size=args.num_machines * args.num_processes,
        rank=args.machine_rank * args.num_processes + local_rank,
        timeout=_TIMEOUT,
    )
    compat.set_local_process_group(args.num_processes, args.machine_rank)
    _work_and_leave(main, args)


def _work_and_leave(main: Callable[..., Any], args: LaunchSettings) -> None:
    main(args)
    # Not after an error: leaving the group waits for the others, and they would report the lost
    # connection before this process has reported what happened.
    if dist.is_initialized():
        leave_process_groups()


def leave_process_groups() -> None:
    """Leaves every process group, and ends the threads of those on the CPU.

    A gloo group's threads live as long as anything refers to the group, and one that still lets go
    of a finished exchange while Python shuts down aborts the process (pytorch issue 190489). So
    what refers to a group goes first: what Detectron2 keeps, and models, which sit in cycles.
    """
    compat.forget_process_groups()
    gc.collect()
    dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
