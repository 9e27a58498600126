"""``FaceDetector``: finds faces in images with any backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, overload

import numpy as np
from numpy.typing import NDArray

from face_d2.ops.resize import resize
from face_d2.ops.spec import DetectorSpec, ForeignFileError
from face_d2.ops.tiling import detect_tiled, min_max_pixels
from face_d2.predictor.images import ImageLike, image_name, load_image
from face_d2.predictor.results import FaceResult, RawDetections
from face_d2.pretrained import DEFAULT, find_pretrained
from face_d2.utils.choices import check_number

__all__ = ["Backend", "FaceDetector"]

#: Errors of a single image. Other exceptions end the search.
_IMAGE_ERRORS = (ValueError, TypeError, OSError)


class Backend(Protocol):
    """Runs a network."""

    #: Input, levels and inference settings of the network.
    spec: DetectorSpec
    #: Name of the runtime for messages, for example "PyTorch 2.14.1 on cpu".
    runtime: str

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[RawDetections]:
        """Finds the faces of images (H, W, 3) of any sizes, in the network's channel order.

        The result of an image does not depend on the other images.
        """


@dataclass(frozen=True)
class _Item:
    """An image in a batch; ``searched`` is the resized input of the network, of ``pixels``."""

    source: str
    size: tuple[int, int]
    searched: NDArray[np.uint8]
    pixels: float


class FaceDetector:
    """Finds faces in images.

    ``FaceDetector()`` uses the default detector that ships with the package.
    :meth:`from_pretrained` takes the name of a shipped detector, :meth:`from_config` a config and a
    checkpoint, and :meth:`from_onnx` an exported file.

    Example::

        from face_d2 import FaceDetector

        faces = FaceDetector().detect("photo.jpg")
        print(faces.boxes, faces.scores)  # (N, 4) XYXY pixels, (N,)

    Args:
        backend: runs the network; None loads the default detector.
        max_pixels: maximum number of input pixels of the network, which bounds the memory. Larger
            images (after the config's resizing) are searched in overlapping tiles. With the
            default, a 3840 x 2160 frame is searched in one pass.
        tile_overlap: minimum overlap of the tiles in pixels of the resized image. Faces up to this
            size are found at full resolution, larger ones in a downscaled copy; see
            :mod:`face_d2.ops.tiling`. Networks that enlarge small images to a minimum side need an
            overlap of at least twice that side, and a smaller value is raised to it.
        batch_size: maximum number of images per call of the backend.
        min_size: minimum length of the longer side of a box, in pixels of the original image;
            smaller faces are left out.

    Raises:
        ValueError: ``max_pixels``, ``tile_overlap``, ``batch_size`` or ``min_size`` is too small.
        TypeError: ``backend`` is a path or a name, or a setting has another type.
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
            backend = FaceDetector.from_pretrained().backend
        if isinstance(backend, (str, os.PathLike)):
            raise TypeError(
                f"backend is {os.fspath(backend)!r}; a detector is loaded by FaceDetector."
                "from_onnx(FILE), from_config(CONFIG, WEIGHTS) or from_pretrained(NAME)"
            )
        check_number("tile_overlap", tile_overlap, 1, whole=True)
        check_number("batch_size", batch_size, 1, whole=True)
        self._tile_align = max(level.stride for level in backend.spec.levels)
        self._shared_faces = max(tile_overlap, 2 * backend.spec.size_rule.min_side)
        check_number("max_pixels", max_pixels, min_max_pixels(self._shared_faces, self._tile_align))
        check_number("min_size", min_size, 0)
        self.backend: Backend = backend
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
        """Loads a detector that ships with the package. Nothing is downloaded.

        Args:
            name: "df2s2-lite0" or "lffd-20l5s"; their model cards are in ``docs/models``.
            backend: "onnx" (on the CPU; does not import torch) or "torch".
            score_threshold: minimum score of detections, exclusive. The model's default is low
                enough for a complete precision-recall curve; 0.5 suits most uses.
            device: for "torch"; see :meth:`from_config`.
            threads: for "onnx"; number of CPU threads; None leaves the choice to the runtime.
            settings: ``max_pixels``, ``tile_overlap``, ``batch_size`` and ``min_size``.

        Raises:
            ValueError: the name or the backend is unknown, a setting belongs to the other backend,
                or a value is out of range.
            ImportError: torch or Detectron2 is not installed (for "torch").
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
        return cls.from_onnx(
            model.onnx,
            runtime="onnxruntime",
            score_threshold=score_threshold,
            threads=threads,
            **settings,
        )

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
        """Loads a checkpoint with PyTorch.

        Args:
            config_file: path of a config, or the name of a shipped one ("lffd/lffd_25L8S.yaml").
            weights: checkpoint of the config's network; no code in the file is executed.
            device: "cpu", "cuda", "cuda:1"; None chooses CUDA if there is a GPU.
            score_threshold: minimum score of detections, exclusive; None keeps the config's.
            overrides: KEY, VALUE, ... as on Detectron2's command line.
            settings: ``max_pixels``, ``tile_overlap``, ``batch_size`` and ``min_size``.

        Raises:
            FileNotFoundError: there is no such config or checkpoint.
            ValueError: the weights do not fit the network, the config is not of DF2S2 or LFFD,
                there is no such device, or a value is out of range.
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
        """Loads an ONNX file; torch is not imported.

        Args:
            path: a file of ``face-d2-export`` with the outputs "candidates" (the default); or a
                file of YuNet, SCRFD, RetinaFace, YOLO-face, Ultra-Light or CenterFace, which runs
                with ONNX Runtime (see :mod:`face_d2.detectors`).
            runtime: "onnxruntime", "openvino" or "auto". "auto" chooses OpenVINO if it is
                installed, because it is faster on CPUs, and ONNX Runtime otherwise. Both run on the
                CPU in the precision of the file; ``FaceDetector.runtime`` is the one in use.
            score_threshold: minimum score of detections, exclusive; None keeps the file's.
            threads: number of CPU threads; None leaves the choice to the runtime.
            settings: ``max_pixels``, ``tile_overlap``, ``batch_size`` and ``min_size``.

        Raises:
            FileNotFoundError: there is no such file.
            ImportError: the runtime is not installed.
            ValueError: the file has another format, or a value is out of range.

        Warns:
            RuntimeWarning: the file has int8 weights of 8 bits, and their products overflow on this
                processor, so detections are wrong.
        """
        from face_d2.predictor.onnx_backend import OnnxBackend

        threshold = _checked_threshold(score_threshold)
        if threads is not None:
            check_number("threads", threads, 1, whole=True)
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
        """Names of the levels (LFFD: branches) that ``FaceResult.levels`` refers to."""
        return tuple(level.name for level in self.backend.spec.levels)

    @property
    def runtime(self) -> str:
        """Name, version and device of the runtime."""
        return self.backend.runtime

    # A str, bytes or array is an image, although it is a sequence too.
    @overload
    def detect(  # type: ignore[overload-overlap]
        self, images: ImageLike, *, color_order: str = "BGR"
    ) -> FaceResult: ...

    @overload
    def detect(
        self, images: Sequence[ImageLike], *, color_order: str = "BGR"
    ) -> list[FaceResult]: ...

    def detect(
        self, images: ImageLike | Sequence[ImageLike], *, color_order: str = "BGR"
    ) -> FaceResult | list[FaceResult]:
        """Finds the faces of one image or of several.

        Args:
            images: a path, the bytes of an image file, a Pillow image, or an array (uint8 or
                uint16; (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)); or a list or tuple of these.
            color_order: channel order of arrays, "BGR" or "RGB".

        Returns:
            A result, or for a list one result per image in the same order. In a list, an image that
            cannot be read gets a result with ``error`` set.

        Raises:
            FileNotFoundError, OSError, ValueError, TypeError: a single image cannot be read (see
                :func:`face_d2.predictor.images.load_image`), or ``color_order`` is unknown.
        """
        if isinstance(images, (list, tuple)):
            return list(self.stream(images, color_order=color_order))
        (result,) = self.stream([cast(ImageLike, images)], color_order=color_order)
        if result.error is not None:
            raise result.error
        return result

    def stream(
        self, images: Iterable[ImageLike], *, color_order: str = "BGR"
    ) -> Iterator[FaceResult]:
        """Like :meth:`detect` on a list, but lazily: only one batch is in memory."""
        load_image(np.zeros((1, 1), np.uint8), color_order)  # validate color_order before any image
        batch: list[_Item | FaceResult] = []
        pixels = 0.0
        for image in images:
            item = self._prepare(image, color_order)
            size = item.pixels if isinstance(item, _Item) else 0.0
            if batch and (len(batch) >= self.batch_size or pixels + size > self.max_pixels):
                yield from self._finish(batch)
                batch, pixels = [], 0.0
            batch.append(item)
            pixels += size
        yield from self._finish(batch)

    def _prepare(self, image: ImageLike, color_order: str) -> _Item | FaceResult:
        """The input of the network, or the result of an image that cannot be read."""
        source, rule = image_name(image), self.backend.spec.size_rule
        try:
            pixels = load_image(image, color_order)
        except _IMAGE_ERRORS as error:
            return FaceResult.from_error(error, source)
        size = pixels.shape[:2]
        if self.backend.spec.input_format == "RGB":
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        searched = resize(pixels, *rule.resized(*size))
        return _Item(source, size, searched, rule.searched_pixels(*searched.shape[:2]))

    def _finish(self, batch: Sequence[_Item | FaceResult]) -> Iterator[FaceResult]:
        items = [item for item in batch if isinstance(item, _Item)]
        whole = [item.searched for item in items if item.pixels <= self.max_pixels]
        detections = iter(self.backend.detect(whole) if whole else [])
        for item in batch:
            if isinstance(item, FaceResult):
                yield item
                continue
            if item.pixels <= self.max_pixels:
                found = next(detections)
            else:
                found = self._search_tiles(item.searched)
            height, width = item.size
            scale = (width / item.searched.shape[1], height / item.searched.shape[0])
            image = {"height": height, "width": width, "source": item.source}
            yield FaceResult.from_raw(found, scale, self.min_size, **image)

    def _search_tiles(self, image: NDArray[np.uint8]) -> RawDetections:
        """Searches a large image in tiles, see :mod:`face_d2.ops.tiling`.

        A strip, an image with a shorter side below the minimum side of the network, is enlarged by
        the network, so the limits are divided by the enlargement. Its faces are hardly longer than
        the strip is wide. Downscaled copies that are thinner than this would only be enlarged
        again, so they are not searched.
        """
        min_side, shorter = self.backend.spec.size_rule.min_side, min(image.shape[:2])
        if shorter < self.backend.spec.min_image_side:
            return RawDetections.empty()
        max_pixels, overlap, align = self.max_pixels, self._shared_faces, self._tile_align
        if shorter < min_side:
            enlarged = min_side / shorter
            max_pixels = int((max_pixels - min_side) / enlarged**2)  # sides are rounded afterwards
            overlap = shorter + shorter // 2
            align = max(int(align / enlarged), 1)

        def rows(tile: NDArray[np.uint8]) -> NDArray[np.float32]:
            if min(tile.shape[:2]) < min(shorter, min_side):
                found = RawDetections.empty()
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
        return RawDetections(found[:, :4], found[:, 4], found[:, 5].astype(np.int64))


def _checked_threshold(score_threshold: float | None) -> float | None:
    if score_threshold is not None:
        check_number("score_threshold", score_threshold, 0)
        if score_threshold >= 1:
            raise ValueError(f"score_threshold is {score_threshold}; expected [0, 1)")
    return score_threshold
