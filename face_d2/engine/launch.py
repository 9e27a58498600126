"""Starts the processes of a training or evaluation.

Processes on GPUs are started by Detectron2's launcher, which assumes CUDA. Processes on the CPU are
started here with the gloo backend. Training then uses torch's DistributedDataParallel in both
cases.
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
    """The processes to start; the names are those of Detectron2's flags.

    Attributes:
        num_gpus: GPUs per machine, with one process each; 0 for the CPU.
        num_processes: processes per machine on the CPU.
        num_machines: number of machines.
        machine_rank: index of this machine, starting at 0.
        dist_url: tcp://HOST:PORT of the first machine; "auto" for a single machine.
    """

    num_gpus: int
    num_processes: int
    num_machines: int
    machine_rank: int
    dist_url: str


def launch(main: Callable[..., Any], args: LaunchSettings) -> None:
    """Calls ``main(args)`` in every process.

    If a process raises or is killed, the others on its machine are terminated, and its traceback or
    signal is raised here. Processes on other machines fail because the connection is closed.

    Args:
        main: the function to run; must be importable by name in a spawned process.
        args: the processes to start, and everything else that ``main`` needs; sent to every
            process.

    Raises:
        SystemExit: there are fewer GPUs than requested, or ``--num-processes`` is used with GPUs.
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
    # Divide the cores among the processes; by default, every process would use all of them.
    threads = max(torch.get_num_threads() // args.num_processes, 1)
    mp.spawn(_cpu_worker, nprocs=args.num_processes, args=(main, args, url, threads))


def _cpu_worker(
    local_rank: int, main: Callable[..., Any], args: LaunchSettings, url: str, threads: int
) -> None:
    # If the parent dies, this process gets SIGINT. Python would handle it only after the wait for
    # the other processes; the default action of the system ends the process immediately.
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
    # Not after an error: leaving the group waits for the other processes, which would report the
    # lost connection before this process has reported its error.
    if dist.is_initialized():
        leave_process_groups()


def leave_process_groups() -> None:
    """Leaves all process groups and ends the threads of those on the CPU.

    The threads of a gloo group live as long as there are references to the group. A thread that
    releases a finished operation while Python shuts down aborts the process (pytorch issue 190489).
    Therefore, references to groups are removed first: those in Detectron2, and models, which are
    part of reference cycles.
    """
    compat.forget_process_groups()
    gc.collect()
    dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
