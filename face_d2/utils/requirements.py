"""The packages that optional parts need, and how to install them."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["REQUIRED_MODULES", "is_importable", "require", "require_opencv"]

#: Extra of this distribution -> modules without which its part cannot start.
REQUIRED_MODULES = {
    "compare": ("plotly",),
    "onnx": ("onnx",),
    "plots": ("matplotlib",),
    "train": ("torch", "torchvision", "fvcore", "pycocotools"),
}


def require(extra: str) -> None:
    """Checks that the packages of an extra, a key of :data:`REQUIRED_MODULES`, are installed.

    Raises:
        ModuleNotFoundError: a package is missing; the message is the command that installs it.
    """
    missing = [name for name in REQUIRED_MODULES[extra] if not is_importable(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        names = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        raise ModuleNotFoundError(
            f"{names} {verb} not installed: pip install 'face-d2[{extra}]'", name=missing[0]
        )


def require_opencv() -> None:
    """Checks that OpenCV can be imported; on many servers, a system library is missing.

    Raises:
        ImportError: it cannot; the message says how to install it.
    """
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"OpenCV does not import ({error}). Install it with `pip install opencv-python`; on a "
            "machine without libGL (most servers): pip uninstall -y opencv-python && "
            "pip install opencv-python-headless"
        ) from error


def is_importable(module: str) -> bool:
    """Whether a top-level module can be found."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # an import hook refuses it, or it is half imported
        return False
