"""Checkpoints that are written atomically and read without executing code."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from torch import Tensor, nn

from face_d2.engine.ema import ModelEMA
from face_d2.modeling.weight_file import read_weight_file
from face_d2.pretrained import PRETRAINED, find_pretrained
from face_d2.utils.files import replaced_file, write_text
from face_d2.utils.known_mistake import known_mistake

__all__ = ["FaceCheckpointer", "load_array_pickle", "local_weights"]


class _TensorsOnly(Checkpointer):
    """Reads ``.pth`` files as tensors and plain values; Detectron2's class calls this one."""

    def _load_file(self, f: str) -> Any:
        if f.endswith(".onnx"):
            raise ValueError(
                f"{f} is a network in ONNX's form, which holds no weights to load; "
                "tools/predict.py --onnx runs it, tools/evaluate_widerface.py scores what it finds."
            )
        content = read_weight_file(f)
        if f.endswith(".safetensors"):
            return {"model": content}
        if not isinstance(content, dict):
            content = {f"a {type(content).__name__}": content}
        if "model" in content:
            return content
        weights = content.get("state_dict", content)  # the key of MMDetection, Lightning and others
        if not isinstance(weights, dict) or not all(
            isinstance(value, Tensor) for value in weights.values()
        ):
            raise ValueError(
                f"{f} holds {', '.join(map(str, list(content)[:5]))}; expected tensors by name, or "
                "a dict of them as 'model' or 'state_dict'."
            )
        return {"model": weights}


def local_weights(path: str) -> str:
    """The file of ``MODEL.WEIGHTS`` on this machine; an address is fetched into Detectron2's cache.

    Args:
        path: a file, an address such as ``detectron2://ImageNetPretrained/MSRA/R-50.pkl``, or the
            name of a shipped detector.

    Raises:
        FileNotFoundError: there is no such file, or it cannot be fetched; the message says what to
            do instead.
    """
    if path in PRETRAINED:
        return str(find_pretrained(path).weights)
    if "://" not in path:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such checkpoint")
        return path
    try:
        return str(PathManager.get_local_path(path))
    except Exception as error:  # of whatever fetches this kind of address
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(
            f"{path} cannot be fetched ({reason}). Copy the file here from another machine and add "
            f"MODEL.WEIGHTS /path/to/{path.rpartition('/')[2]}, or start from random weights by "
            'MODEL.WEIGHTS ""'
        ) from error


class FaceCheckpointer(DetectionCheckpointer, _TensorsOnly):
    """Detectron2's checkpointer, safe against kills, full disks and malicious files.

    Checkpoints and the file ``last_checkpoint`` are written under a temporary name and renamed when
    they are complete. ``.pth`` files are read as tensors and plain values only. ``.pkl`` files, the
    format of Detectron2's own weights, are read as arrays only.

    Args:
        model, save_dir, checkpointables: see Detectron2.
        ema: if given, its averaged weights are saved as ``model`` of the checkpoint, so that all
            readers of the file get the evaluated network.

    Raises:
        OSError: saving fails; older checkpoints are unchanged.
        ValueError: a file contains anything else, or is damaged.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        ema: ModelEMA | None = None,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self._ema = ema
        self._resumes = False

    def save(self, name: str, **kwargs: Any) -> None:
        """Saves the model, the checkpointables and ``kwargs`` as ``<name>.pth``."""
        if not (self.save_dir and self.save_to_disk):
            return
        state = {"model": self._ema.averages() if self._ema else self.model.state_dict()}
        state.update({key: part.state_dict() for key, part in self.checkpointables.items()})
        state.update(kwargs)
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        with replaced_file(path) as temporary:
            torch.save(state, temporary)
        self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Makes ``--resume`` continue from this file."""
        write_text(last_filename_basename, Path(self.save_dir) / "last_checkpoint")

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a file, see Detectron2; :meth:`missing` then lists the tensors that it did not
        contain.

        ``path`` can also be the name of a detector that ships with the package.

        Raises:
            FileNotFoundError: see :func:`local_weights`.
        """
        if path in PRETRAINED:
            path = str(find_pretrained(path).weights)
        # Other machines may not have the file; Detectron2 sends them the weights of the main
        # process.
        if comm.is_main_process() and path:
            path = local_weights(path)
        self._loaded = path
        self._incompatible = None
        return super().load(path, *args, **kwargs)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """See Detectron2.

        Raises:
            FileNotFoundError: see :func:`local_weights`.
            ValueError: the run to resume has another network, or left only weights.
        """
        self._resumes = resume and self.has_checkpoint()
        return super().resume_or_load(path, resume=resume)

    def missing(self) -> list[str]:
        """Sorted names of the network's tensors that were not in the loaded file.

        Training counters, which prediction does not use, are left out, and so are the pixel mean
        and standard deviation, which are in the config.
        """
        if self._incompatible is None:  # nothing was loaded
            return []
        wrong = self._incompatible
        names = {*wrong.missing_keys, *(name for name, *_ in wrong.incorrect_shapes)}
        return sorted(names & self._wanted())

    def require_all(self) -> None:
        """Checks that the loaded file contains all weights of this network.

        Raises:
            ValueError: a tensor is missing or has another shape, so that part of the network would
                have random weights.
        """
        missing = self.missing()
        if missing:
            raise ValueError(
                f"{self._loaded}: not weights of this config's network; {len(missing)} parameters "
                f"are missing or of another shape, for example {', '.join(missing[:3])}"
            )

    def require_some(self) -> None:
        """Logs how many tensors of the network the loaded file contains, before a training.

        Raises:
            ValueError: the file contains none of them.
        """
        missing = self.missing()
        total = len(self._wanted())
        if missing and len(missing) == total:
            raise ValueError(
                f"{self._loaded} holds nothing of this config's network; train from random weights "
                'by MODEL.WEIGHTS "".'
            )
        if missing:
            self.logger.info(
                "%d of %d tensors are from %s; the others start at random, for example %s",
                total - len(missing),
                total,
                self._loaded,
                ", ".join(missing[:3]),
            )

    def _wanted(self) -> set[str]:
        counters = {name for name, buffer in self.model.named_buffers() if buffer.dim() == 0}
        of_config = {name for name, _ in self.model.named_buffers(recurse=False)}
        return self.model.state_dict().keys() - counters - of_config

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._incompatible = super()._load_model(checkpoint)
        if self._resumes:
            self._require_run(checkpoint)
        return self._incompatible

    def _require_run(self, checkpoint: dict[str, Any]) -> None:
        new_run = f"start a new run by MODEL.WEIGHTS {self._loaded} and another OUTPUT_DIR."
        if missing := self.missing():
            raise ValueError(
                f"{self._loaded} is of a run with another network; {len(missing)} parameters are "
                f"missing or of another shape, for example {', '.join(missing[:3])}. Resume with "
                f"the config of that run, or {new_run}"
            )
        if absent := self.checkpointables.keys() - checkpoint.keys():
            raise ValueError(
                f"{self._loaded} holds weights but no {', '.join(sorted(absent))}, without which "
                f"its run cannot be resumed; {new_run}"
            )

    def _load_file(self, filename: str) -> Any:
        if not filename.endswith(".pkl"):
            return super()._load_file(filename)
        data = load_array_pickle(filename)
        if "model" in data and "__author__" in data:
            return data  # Detectron2's model zoo
        blobs = data.get("blobs", data)  # a Caffe2 backbone; its momenta are not used
        model = {name: blob for name, blob in blobs.items() if not name.endswith("_momentum")}
        return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}


def load_array_pickle(path: str | Path) -> dict[str, Any]:
    """Reads a pickle of NumPy arrays, tensors and plain containers and refuses anything else.

    Detectron2 publishes its weights as pickles, and unpickling can execute arbitrary code.

    Raises:
        ValueError: the file is damaged, or refers to a class or function other than the
            constructors of arrays and tensors.
    """
    try:
        data = _ArrayUnpickler(io.BytesIO(Path(path).read_bytes()), encoding="latin1").load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = known_mistake(path) or error
        raise ValueError(f"{path} cannot be read as a pickle of arrays: {reason}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds a {type(data).__name__}; expected a dict of arrays.")
    return data


class _ArrayUnpickler(pickle.Unpickler):
    # NumPy 2 moved these functions; files use the old or the new module.
    _MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
    _NAMES = ("ndarray", "dtype", "_reconstruct", "scalar")
    # The first is for bytes in the pickle protocol of Python 2, the last two for torch's tensors.
    _OTHERS = (
        ("_codecs", "encode"),
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
    )

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module in self._MODULES and name in self._NAMES) or (module, name) in self._OTHERS:
            return super().find_class(module, name)
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _read_storage
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which holds no array")


def _read_storage(content: bytes) -> Any:
    """The values of a tensor in a pickle; torch's own function would unpickle anything."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
