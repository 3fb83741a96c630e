"""Run an exported depth network. This one file, onnxruntime and numpy are all that it takes:

    depth = OnnxDepth("depth-fp32.onnx").predict(rgb)

Resizing, normalisation and the unit are inside the file, so there is nothing to set up and nothing to get wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime

_PREFIX = "sfmttr."
_CPU = "CPUExecutionProvider"
Provider = str | tuple[str, Mapping[str, str]]
"""A name, or a name with onnxruntime's options for it."""


class ModelError(Exception):
    """The file cannot be run, or is not an exported depth network. The message says what to do."""


class OnnxDepth:
    """An exported depth network.

    It is a depth predictor as `sfmttr` knows them: `kind`, and `predict`.
    """

    def __init__(
        self, path: str | os.PathLike[str], providers: Sequence[Provider] = (_CPU,), *, threads: int | None = None
    ) -> None:
        """Load the file at `path`.

        `providers` are onnxruntime's, the favourite first, e.g. `("CUDAExecutionProvider", "CPUExecutionProvider")`.
        onnxruntime falls back to a later one without an error: `provider` says which one it is. `threads`: how many a
        prediction may use on the CPU; None: all cores.
        Raises `ModelError` when the file cannot be loaded, or takes no pictures.
        """
        known = onnxruntime.get_available_providers()
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ModelError(f"this onnxruntime has no {unknown[0]}; it has {', '.join(known)}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: what else it says concerns its own choices
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(path), options, providers=list(providers))
        except Exception as error:
            raise ModelError(f"{os.fspath(path)} cannot be loaded: {error}") from error
        stored = self._session.get_modelmeta().custom_metadata_map
        self.metadata = {name.removeprefix(_PREFIX): text for name, text in stored.items() if name.startswith(_PREFIX)}
        """Metadata of the file: network, license, held-out errors, ... as text."""
        if self.metadata.get("graph") != "image":
            raise ModelError(
                f"{os.fspath(path)} takes no pictures: give one of depth-fp32.onnx, depth-fp16.onnx, depth-int8.onnx"
            )

    @property
    def provider(self) -> str:
        """Execution providers that the session uses."""
        return str(self._session.get_providers()[0])

    @property
    def kind(self) -> str:
        """ "metric", or "scale_invariant": up to one unknown factor."""
        return self.metadata["kind"]

    @property
    def unit(self) -> str:
        """ "metres" or "network units"."""
        return self.metadata["unit"]

    @property
    def source_offsets(self) -> tuple[int, ...]:
        """Frames that the network sees beside a picture, relative to it: () for most, (-1,) for the one before it."""
        return tuple(json.loads(self.metadata.get("neighbours") or "[]"))

    def predict(self, rgb: np.ndarray, *source_frames: np.ndarray) -> np.ndarray:
        """Depth (H, W) float32, camera z, of an image (H, W, 3) uint8 RGB of any size.

        `source_frames` are the pictures at `source_offsets`, of the same size; without them the picture is its own.
        Raises ValueError for arrays of another form, `ModelError` when the network cannot be run on them.
        """
        pictures = (rgb, *(source_frames or (rgb,) * len(self.source_offsets)))
        for picture in pictures:
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
                raise ValueError(f"expected an image (H, W, 3) uint8, got {picture.shape} {picture.dtype}")
            if picture.shape != rgb.shape:
                raise ValueError(f"expected a neighbour of size {rgb.shape}, got {picture.shape}")
        names = [each.name for each in self._session.get_inputs()]
        if len(pictures) != len(names):
            raise ValueError(f"expected {len(names) - 1} neighbours, got {len(pictures) - 1}")
        feed = {name: np.ascontiguousarray(each[None]) for name, each in zip(names, pictures, strict=True)}
        try:
            (depth,) = self._session.run(None, feed)
        except Exception as error:
            raise ModelError(f"the network failed on an image of {rgb.shape[0]} x {rgb.shape[1]}: {error}") from error
        return np.asarray(depth[0])
