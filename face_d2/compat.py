"""The only file with code for particular Detectron2 versions.

Detectron2 0.5, 0.6 and main are supported. 0.5 and 0.6 are older than current NumPy, Pillow and
PyTorch, and a Python-only installation does not have Detectron2's compiled operators, which face
detectors do not need. :func:`apply` fixes the resulting incompatibilities. It must run before the
first ``import detectron2.modeling``; therefore every module of this project that needs Detectron2
imports :mod:`face_d2.needs_detectron2` first, which calls it.

:mod:`face_d2.startup` makes every order of imports work in an environment.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
import warnings
from typing import Any

from face_d2.utils.requirements import is_importable, require, require_opencv

__all__ = [
    "apply",
    "detectron2_version",
    "forget_process_groups",
    "has_compiled_ops",
    "prepare",
    "prepare_at_first_import",
    "set_local_process_group",
]

_INSTALL_DETECTRON2 = (
    "Detectron2 is not installed. From a checkout of this project, `make install` installs it; "
    "or pip install 'face-d2[train]' and the official one: pip install --no-build-isolation "
    "'git+https://github.com/facebookresearch/detectron2.git'"
)


@functools.cache
def apply() -> None:
    """Makes the installed Detectron2 importable and usable. Idempotent.

    Raises:
        ImportError: torch, Detectron2 or OpenCV is missing; the message says how to install it.
    """
    require("train")
    require_opencv()
    if not is_importable("detectron2"):
        raise ModuleNotFoundError(_INSTALL_DETECTRON2, name="detectron2")
    prepare()
    with warnings.catch_warnings():
        # Detectron2 and fvcore use functions that current versions of PyTorch deprecate.
        for deprecation in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", deprecation)
        if not has_compiled_ops():
            _evaluate_with_pycocotools()
        if not is_importable("pkg_resources"):
            _import_model_zoo_without_pkg_resources()
        _allow_group_norm_in_heads()
    _allow_whole_numbers_for_fractions()


@functools.cache
def prepare() -> None:
    """The fixes without which Detectron2 cannot be imported. Imports nothing of it but the package.

    Idempotent; :func:`apply` calls it.
    """
    _restore_numpy_aliases()
    _restore_pillow_constant()
    if not has_compiled_ops():
        sys.modules["detectron2._C"] = _MissingOps("detectron2._C")


def prepare_at_first_import() -> None:
    """Calls :func:`prepare` when the first module of Detectron2 is imported."""
    sys.meta_path.insert(0, _Preparer())  # type: ignore[arg-type]


class _Preparer:
    """Finds no module itself; it only sees which one Python looks for."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Python's protocol of import hooks."""
        if name.startswith("detectron2."):  # of which the package itself is imported by now
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            prepare()


@functools.cache
def has_compiled_ops() -> bool:
    """Whether Detectron2's C++ operators (``detectron2._C``) are installed."""
    return importlib.util.find_spec("detectron2._C") is not None


def detectron2_version() -> str:
    """The installed version, for logs and reports."""
    import detectron2

    return str(detectron2.__version__)


def set_local_process_group(processes_per_machine: int, machine_rank: int) -> None:
    """Tells Detectron2 which processes share this machine, as its own launcher does.

    Call it in every process after ``torch.distributed.init_process_group``.
    """
    import torch.distributed as dist
    from detectron2.utils import comm

    if hasattr(comm, "create_local_process_group"):  # main
        comm.create_local_process_group(processes_per_machine)
        return
    for machine in range(dist.get_world_size() // processes_per_machine):
        first = machine * processes_per_machine
        group = dist.new_group(list(range(first, first + processes_per_machine)))
        if machine == machine_rank:
            comm._LOCAL_PROCESS_GROUP = group


def forget_process_groups() -> None:
    """Removes Detectron2's references to process groups.

    Call it before ``torch.distributed.destroy_process_group``, which ends the threads of a group
    only if there are no references to it.
    """
    from detectron2.utils import comm

    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()


class _MissingOps(types.ModuleType):
    """Replaces ``detectron2._C``; calling one of its operators raises a clear error."""

    # Used by Detectron2's report of the environment.
    get_compiler_version = staticmethod(lambda: "none (Python-only installation)")
    get_cuda_version = staticmethod(lambda: "none (Python-only installation)")
    has_cuda = staticmethod(lambda: False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_: object, **__: object) -> None:
            raise RuntimeError(
                f"detectron2._C.{name} was called, but this Detectron2 was installed without its "
                "compiled operators (rotated boxes, deformable convolution, fast COCO "
                "evaluation). Install the official build to use them: make install "
                "DETECTRON2='git+https://github.com/facebookresearch/detectron2.git'"
            )

        return missing


def _evaluate_with_pycocotools() -> None:
    """Detectron2's COCOEvaluator calls the compiled evaluator by default; the figures are equal."""
    import detectron2.evaluation.coco_evaluation as coco_evaluation
    from pycocotools.cocoeval import COCOeval

    coco_evaluation.COCOeval_opt = COCOeval


def _import_model_zoo_without_pkg_resources() -> None:
    """Imports ``detectron2.model_zoo`` with a replacement for one function of ``pkg_resources``.

    setuptools 82 removed that module. The replacement exists during this import only, because other
    packages would expect the whole module.
    """
    import importlib.resources

    stand_in = types.ModuleType("pkg_resources")
    stand_in.resource_filename = lambda package, name: str(  # type: ignore[attr-defined]
        importlib.resources.files(package).joinpath(name)
    )
    sys.modules["pkg_resources"] = stand_in
    try:
        import detectron2.model_zoo  # noqa: F401
    finally:
        del sys.modules["pkg_resources"]


def _allow_group_norm_in_heads() -> None:
    """Detectron2 0.6's heads, such as FCOS's, build a normalization of one channel to get its name.

    Current PyTorch refuses a GroupNorm of one channel and 32 groups.
    """
    import detectron2.modeling.meta_arch.retinanet as retinanet

    get_norm = retinanet.get_norm
    retinanet.get_norm = lambda norm, channels: get_norm(norm, 32 if channels == 1 else channels)


def _allow_whole_numbers_for_fractions() -> None:
    """yacs, Detectron2's config library, does not accept 5 for a key with a default of 5.0."""
    import yacs.config

    check = yacs.config._check_and_coerce_cfg_value_type

    def check_number(replacement: Any, original: Any, key: str, full_key: str) -> Any:
        if type(original) is float and type(replacement) is int:  # not bool, which is an int too
            return float(replacement)
        return check(replacement, original, key, full_key)

    yacs.config._check_and_coerce_cfg_value_type = check_number


def _restore_numpy_aliases() -> None:
    """NumPy 1.24 removed ``np.int`` and similar names, which Detectron2 0.5 and 0.6 use."""
    import numpy as np

    for name, builtin in {"bool": bool, "int": int, "float": float, "object": object}.items():
        if name not in np.__dict__:
            setattr(np, name, builtin)


def _restore_pillow_constant() -> None:
    """Pillow 10 removed ``Image.LINEAR``, a default argument in Detectron2 0.5 and 0.6."""
    from PIL import Image

    if "LINEAR" not in vars(Image):  # Pillow 9.1 to 9.5 still have it, with a warning
        Image.LINEAR = getattr(Image, "Resampling", Image).BILINEAR  # type: ignore[attr-defined]
