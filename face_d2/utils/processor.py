"""The processor and the memory of this process and its machine."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

__all__ = ["peak_memory", "processor_name", "usable_cores"]

#: Flag in /proc/cpuinfo -> the instructions that decide how fast networks run, best first.
_EXTENSIONS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx2": "AVX2",
}


def processor_name() -> str:
    """The model of the processor and, on x86-64 Linux, its widest vector instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields: dict[str, str] = {}
    for key, _, value in (line.partition(":") for line in lines):
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = fields.get("flags", "").split()
    extension = next((text for flag, text in _EXTENSIONS.items() if flag in flags), "")
    return f"{name} ({extension})" if extension else name


def usable_cores() -> int:
    """Number of cores that this process may use, including limits by containers and batch
    systems."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> float:
    """The peak memory of this process in MiB.

    On Linux, a new process inherits the peak of getrusage, so /proc is read there.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes
