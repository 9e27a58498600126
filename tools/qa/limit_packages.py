"""Packages that ask for the processor's features in a way that limit_processor.c can answer.

    python tools/qa/limit_packages.py FOLDER
    LIMIT_PROCESSOR=avx2 LD_PRELOAD=limit_processor.so LIMITED_PACKAGES=FOLDER python ...

Where the machine cannot make the CPUID instruction fault, it is replaced by an undefined
instruction of the same length, which always faults. FOLDER receives the installed packages that
choose their kernels by CPUID: changed copies of the libraries that contain it, and hard links to
all other files. On a machine with CPUID faulting, FOLDER stays empty, because nothing has to be
changed. Needs objdump.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from face_d2.cli.common import CommandParser, run

PACKAGES = ("numpy", "scipy", "cv2", "torch", "onnxruntime", "openvino")
CPUID, UNDEFINED = b"\x0f\xa2", b"\x0f\x0b"
_ARCH_PRCTL, _ARCH_SET_CPUID = 158, 0x1012  # the system call on x86-64, and its operation
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+cpuid", re.MULTILINE)
_SECTION = re.compile(r"^\s*\d+ (\S+)\s+\w+\s+(\w+)\s+\w+\s+(\w+)", re.MULTILINE)


def can_fault() -> bool:
    """Whether the machine can make CPUID itself fault: it accepts that CPUID is allowed."""
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_SET_CPUID, 1) == 0


def places_of_cpuid(library: Path) -> list[int]:
    """Offsets in the file of all CPUID instructions."""
    if CPUID not in library.read_bytes():
        return []
    headers = subprocess.run(
        ["objdump", "-h", "-w", str(library)], check=True, capture_output=True, text=True
    ).stdout
    places = []
    for name, address, offset in _SECTION.findall(headers):
        if not name.startswith(".text"):
            continue
        shift = int(offset, 16) - int(address, 16)
        command = f"objdump -d --no-show-raw-insn -j {name} '{library}' | grep cpuid || true"
        lines = subprocess.run(
            command, shell=True, check=True, capture_output=True, text=True
        ).stdout
        places += [int(place, 16) + shift for place in _LINE.findall(lines)]
    return places


def package_folders(name: str) -> Iterator[Path]:
    """The folder of a package, and that of the libraries which its wheel puts beside it."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        return
    folder = Path(found.submodule_search_locations[0])
    yield folder
    yield from folder.parent.glob(f"{name}.libs")
    if name == "cv2":
        yield from folder.parent.glob("opencv_python*.libs")


def write_limited(source: Path, target: Path) -> int:
    """Links or changes all files of a folder; returns the number of changed instructions."""
    changed = 0
    for file in tqdm(sorted(source.rglob("*")), desc=source.name, disable=not sys.stderr.isatty()):
        place = target / file.relative_to(source)
        if file.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            continue
        is_library = ".so" in file.suffixes and "cuda" not in file.name
        places = places_of_cpuid(file) if is_library else []
        if not places:
            try:  # no symbolic link: OpenCV would look for its library where the link leads
                place.hardlink_to(file)
            except OSError:  # another file system
                shutil.copy2(file, place)
            continue
        code = bytearray(file.read_bytes())
        for at in places:
            assert code[at : at + 2] == CPUID, f"{file}: no CPUID at {at:#x}"
            code[at : at + 2] = UNDEFINED
        place.write_bytes(code)
        changed += len(places)
    return changed


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the folder; returns the exit status."""
    parser = CommandParser(
        "tools/qa/limit_packages.py",
        "Copies the packages that choose their kernels by CPUID, with that instruction replaced by "
        "one that tools/qa/limit_processor.c answers.",
        examples=("python tools/qa/limit_packages.py .venv/limited",),
        epilog="Needs objdump. Writes nothing where the machine can make CPUID fault.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="receives the packages")
    parser.add_argument(
        "--packages", nargs="+", default=PACKAGES, choices=PACKAGES, help="(default: all)"
    )
    options = parser.parse_args(argv)
    return run(lambda: limit(options.folder, options.packages), subprocess.CalledProcessError)


def limit(target: Path, packages: Sequence[str]) -> None:
    """Writes the copies of packages, if the machine needs them."""
    target.mkdir(parents=True, exist_ok=True)
    if can_fault():
        return
    for name in packages:
        for folder in package_folders(name):
            changed = write_limited(folder, target / folder.name)
            print(f"{folder.name}: {changed} CPUID instructions", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
