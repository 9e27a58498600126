"""The name of this machine's processor."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["processor_name"]

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
