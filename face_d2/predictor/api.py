"""``FaceDetector``: pictures in, faces out, whatever runs the network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.resize import resize
from face_d2.ops.spec import DetectorSpec
from face_d2.ops.tiling import detect_tiled, least_max_pixels
from face_d2.predictor.images import ImageLike, image_name, load_image
from face_d2.predictor.results import FaceResult, Found
from face_d2.pretrained import DEFAULT, Pretrained, find_pretrained

__all__ = ["Backend", "FaceDetector"]

#: What belongs to one image; anything else is the network's or the machine's trouble.
_IMAGE_ERRORS = (ValueError, TypeError, OSError)
_NOTHING = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


class Backend(Protocol):
    """Runs a network."""

    #: The network's contract.
    spec: DetectorSpec
    #: What runs it, for people: "PyTorch 2.14.1 on cpu".
    runtime: str

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Found]:
        """Finds the faces of images (H, W, 3) in the network's channel order, of any sizes.

        Every image's faces are those that it would have alone.
        """


@dataclass(frozen=True)
class _Item:
    """One image on its way; ``searched`` is what the network is given."""

    source: str
    size: tuple[int, int] = (0, 0)
    searched: NDArray[np.uint8] | None = None
    error: Exception | None = None


class FaceDetector:
    """Finds faces in images.

    ``FaceDetector()`` is the default detector that ships with the package. :meth:`from_pretrained`
    takes a shipped detector by name, :meth:`from_config` a checkpoint, :meth:`from_onnx` an
    exported file.

    Example::

        from face_d2 import FaceDetector

        faces = FaceDetector().detect("photo.jpg")
        print(faces.boxes, faces.scores)  # (N, 4) XYXY pixels, (N,)

    Args:
        backend: runs the network; by default ONNX Runtime runs the default detector.
        max_pixels: an image whose searched size (after the config's resizing and the network's
            enlarging) has more pixels is searched in overlapping tiles of at most this many, which
            bounds the memory; the default takes a 3840 x 2160 frame in one pass.
        tile_overlap: faces up to this many pixels of the searched image are found in such tiles at
            full resolution, see :mod:`face_d2.ops.tiling`. A network that enlarges small
            images needs, and takes, twice the side to which it does.
        batch_size: most images that go through the network together.
        min_size: faces whose box has a longer side below this, in pixels of the image, are left
            out.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        backend: Backend | None = None,
        *,
        max_pixels: int = 2**23,
        tile_overlap: int = 256,
        batch_size: int = 8,
        min_size: float = 0,
    ) -> None:
        if backend is None:
            backend = _onnx_backend(find_pretrained(DEFAULT))
        self._tile_align = max(level.stride for level in backend.spec.levels)
        self._shared_faces = max(tile_overlap, 2 * backend.spec.size_rule.min_side)
        least = least_max_pixels(self._shared_faces, self._tile_align)
        for name, value, lowest in (
            ("tile_overlap", tile_overlap, 1),
            ("max_pixels", max_pixels, least),
            ("batch_size", batch_size, 1),
            ("min_size", min_size, 0),
        ):
            if value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, not {value}")
        self.backend = backend
        self.max_pixels = max_pixels
        self.tile_overlap = tile_overlap
        self.batch_size = batch_size
        self.min_size = min_size

    @classmethod
    def from_pretrained(
        cls,
        name: str = DEFAULT,
        *,
        backend: str = "onnx",
        score_threshold: float | None = None,
        device: str | None = None,
        threads: int | None = None,
        **settings: Any,
    ) -> FaceDetector:
        """A detector that ships with the package. Nothing is downloaded.

        Args:
            name: "df2s2-lite0" or "lffd-20l5s"; their model cards are in ``docs/models``.
            backend: "onnx" (ONNX Runtime, on the CPU, without torch in the process) or "torch".
            score_threshold: detections score more than this; by default the model's, which is
                low enough for a whole precision-recall curve. 0.5 suits most uses.
            device: for "torch"; see :meth:`from_config`.
            threads: for "onnx"; CPU threads, by default as many as the runtime likes.
            settings: ``max_pixels``, ``tile_overlap``, ``batch_size`` and ``min_size``.

        Raises:
            ValueError: the name or the backend is unknown, a setting belongs to the other backend,
                or a value is out of its range.
            ImportError: for "torch": torch or Detectron2 is not installed.
        """
        model = find_pretrained(name)
        if backend == "torch":
            if threads is not None:
                raise ValueError('threads is a setting of backend "onnx"')
            return cls.from_config(
                model.config,
                model.weights,
                device=device,
                score_threshold=score_threshold,
                **settings,
            )
        if backend != "onnx":
            raise ValueError(f'backend is {backend!r}; expected "onnx" or "torch"')
        if device is not None:
            raise ValueError('device is a setting of backend "torch"')
        return cls(_onnx_backend(model, score_threshold, threads), **settings)

    @classmethod
    def from_config(
        cls,
        config_file: str | os.PathLike[str],
        weights: str | os.PathLike[str],
        *,
        device: str | None = None,
        score_threshold: float | None = None,
        overrides: Sequence[Any] = (),
        **settings: Any,
    ) -> FaceDetector:
        """A detector in PyTorch.

        Args:
            config_file: path of a config, or the name of a shipped one ("lffd/lffd_25L8S.yaml").
            weights: checkpoint of that config's network; read without running code of its own.
            device: "cpu", "cuda", "cuda:1"; by default CUDA where there is a GPU.
            score_threshold: detections score more than this; by default the config's.
            overrides: KEY, VALUE, ... as on Detectron2's command line.
            settings: ``max_pixels``, ``tile_overlap``, ``batch_size`` and ``min_size``.

        Raises:
            FileNotFoundError: there is no such config or checkpoint.
            ValueError: the weights are another network's, the config another detector's, the device
                is not there, or a value is out of its range.
        """
        from face_d2.predictor.torch_backend import TorchBackend

        backend = TorchBackend.from_config(
            config_file,
            weights,
            device=device,
            score_threshold=_checked_threshold(score_threshold),
            overrides=overrides,
        )
        return cls(backend, **settings)

    @classmethod
    def from_onnx(
        cls,
        path: str | os.PathLike[str],
        *,
        runtime: str = "auto",
        score_threshold: float | None = None,
        threads: int | None = None,
        **settings: Any,
    ) -> FaceDetector:
        """A detector from an ONNX file, without torch in the process.

        Args:
            path: a file of ``tools/export_onnx.py``, its outputs "candidates" (the default of the
                export); or a file of YuNet, SCRFD, RetinaFace, YOLO-face, Ultra-Light or CenterFace
                (see :mod:`face_d2.detectors`), which ONNX Runtime runs.
            runtime: "onnxruntime", "openvino", or "auto": OpenVINO, the faster one on a CPU, with
                VNNI and without, where it is installed, otherwise ONNX Runtime. The precision is
                always the file's. Both use the CPU; ``FaceDetector.runtime`` tells which it is.
            score_threshold: detections score more than this; by default the file's.
            threads: CPU threads; by default as many as the runtime likes.
            settings: ``max_pixels``, ``tile_overlap``, ``batch_size`` and ``min_size``.

        Raises:
            FileNotFoundError: there is no such file.
            ImportError: the runtime is not installed.
            ValueError: the file is not such a file, or a value is out of its range.

        Warns:
            RuntimeWarning: the file's int8 weights have 8 bits, and this processor's sums of such
                products overflow: the answers are wrong.
        """
        from face_d2.ops.spec import ForeignFileError
        from face_d2.predictor.onnx_backend import OnnxBackend

        threshold = _checked_threshold(score_threshold)
        try:
            return cls(OnnxBackend(path, runtime, threshold, threads), **settings)
        except ForeignFileError as foreign:
            if runtime == "openvino":
                raise
            from face_d2.predictor.adapter_backend import AdapterBackend

            try:
                return cls(AdapterBackend(path, threshold, threads), **settings)
            except ValueError as unknown:
                raise ValueError(f"{foreign}; and {unknown}") from unknown

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels (LFFD: branches) that ``FaceResult.levels`` counts."""
        return tuple(level.name for level in self.backend.spec.levels)

    @property
    def runtime(self) -> str:
        """What runs the network."""
        return self.backend.runtime

    @overload
    def detect(self, images: ImageLike, *, color_order: str = "BGR") -> FaceResult: ...

    @overload
    def detect(
        self, images: Sequence[ImageLike], *, color_order: str = "BGR"
    ) -> list[FaceResult]: ...

    def detect(
        self, images: ImageLike | Sequence[ImageLike], *, color_order: str = "BGR"
    ) -> FaceResult | list[FaceResult]:
        """Finds the faces of one image or of several.

        Args:
            images: a path, the bytes of an image file, a Pillow image, an array ((H, W),
                (H, W, 1), (H, W, 3) or (H, W, 4); uint8 or uint16); or a list or tuple of such.
            color_order: channel order of arrays, "BGR" or "RGB".

        Returns:
            A result; for a list, one per image in the same order. An image has the same faces in a
            list as alone; one that cannot be read has its ``error`` set there.

        Raises:
            FileNotFoundError, OSError, ValueError, TypeError: a single image cannot be read (see
                :func:`face_d2.predictor.images.load_image`), or ``color_order`` is unknown.
        """
        if isinstance(images, (list, tuple)):
            return list(self.stream(images, color_order=color_order))
        (result,) = self.stream([images], color_order=color_order)
        if result.error is not None:
            raise result.error
        return result

    def stream(
        self, images: Iterable[ImageLike], *, color_order: str = "BGR"
    ) -> Iterator[FaceResult]:
        """As :meth:`detect` on a list, for any number of images: a batch is in memory at a time."""
        load_image(np.zeros((1, 1), np.uint8), color_order)  # an unknown order is no image's error
        batch: list[_Item] = []
        pixels = 0.0
        for image in images:
            item = self._prepare(image, color_order)
            size = 0.0 if item.searched is None else self._pixels(item.searched)
            if batch and (len(batch) == self.batch_size or pixels + size > self.max_pixels):
                yield from self._finish(batch)
                batch, pixels = [], 0.0
            batch.append(item)
            pixels += size
        yield from self._finish(batch)

    def _prepare(self, image: ImageLike, color_order: str) -> _Item:
        source = image_name(image)
        try:
            pixels = load_image(image, color_order)
        except _IMAGE_ERRORS as error:
            return _Item(source, error=error)
        size = pixels.shape[:2]
        if self.backend.spec.input_format == "RGB":
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        return _Item(source, size, resize(pixels, *self.backend.spec.size_rule.resized(*size)))

    def _pixels(self, searched: NDArray[np.uint8]) -> float:
        return self.backend.spec.size_rule.searched_pixels(*searched.shape[:2])

    def _finish(self, batch: Sequence[_Item]) -> Iterator[FaceResult]:
        whole = [
            item.searched
            for item in batch
            if item.searched is not None and self._pixels(item.searched) <= self.max_pixels
        ]
        answers = iter(self.backend.detect(whole) if whole else [])
        for item in batch:
            if item.searched is None:
                assert item.error is not None
                yield FaceResult.of_error(item.error, item.source)
                continue
            if self._pixels(item.searched) <= self.max_pixels:
                found = next(answers)
            else:
                found = self._search_tiles(item.searched)
            height, width = item.size
            scale = (width / item.searched.shape[1], height / item.searched.shape[0])
            image = {"height": height, "width": width, "source": item.source}
            yield FaceResult.of_found(found, scale, self.min_size, **image)

    def _search_tiles(self, image: NDArray[np.uint8]) -> Found:
        """Searches a large image, see :mod:`face_d2.ops.tiling`, or a strip.

        A strip is thinner than the side to which the network enlarges: there the limits are divided
        by the enlargement, and faces are hardly longer than the strip is wide. Halves of an image
        that are that thin would only be enlarged again and are left out.
        """
        min_side, shorter = self.backend.spec.size_rule.min_side, min(image.shape[:2])
        if shorter < self.backend.spec.least_side:
            return _NOTHING
        max_pixels, overlap, align = self.max_pixels, self._shared_faces, self._tile_align
        if shorter < min_side:
            enlarged = min_side / shorter
            max_pixels = int((max_pixels - min_side) / enlarged**2)  # sides are rounded afterwards
            overlap = shorter + shorter // 2
            align = max(int(align / enlarged), 1)

        def rows(tile: NDArray[np.uint8]) -> NDArray[np.float32]:
            if min(tile.shape[:2]) < min(shorter, min_side):
                found = _NOTHING
            else:
                (found,) = self.backend.detect([np.ascontiguousarray(tile)])
            return np.column_stack([found.boxes, found.scores, found.levels.astype(np.float32)])

        found = detect_tiled(
            rows,
            image,
            max_pixels=max_pixels,
            overlap=overlap,
            align=align,
            iou_threshold=self.backend.spec.suppression.nms_threshold,
        )
        return Found(found[:, :4], found[:, 4], found[:, 5].astype(np.int64))


def _onnx_backend(
    model: Pretrained, score_threshold: float | None = None, threads: int | None = None
) -> Backend:
    from face_d2.predictor.onnx_backend import OnnxBackend

    threshold = _checked_threshold(score_threshold)
    return OnnxBackend(model.onnx, "onnxruntime", threshold, threads)


def _checked_threshold(score_threshold: float | None) -> float | None:
    if score_threshold is not None and not 0 <= score_threshold < 1:
        raise ValueError(f"score_threshold must be in [0, 1), not {score_threshold}")
    return score_threshold
