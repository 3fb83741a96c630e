"""Conversion of disparity to depth: one shift per clip, and a guard against values that are not positive.

A network of kind `AFFINE_DISPARITY` gives `disparity = a / depth + b` with unknown `a > 0` and `b`. Once the shift `b`
is known (`refinement.alignment`), `1 / (disparity - b)` is depth up to scale. From there on the network is treated as
any scale-invariant one; its unit does not depend on that of structure-from-motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

Values = TypeVar("Values", np.ndarray, Tensor)

_UNSHIFTED_RANGE = 50.0
"""Largest ratio of far to near depth, where there are no points to fit a shift."""
_LEAST_INVERSE = 1e-6
"""Least inverse depth assumed for the nearest pixel."""


def depth_of(inverse: Values, floor: float | Tensor) -> Values:
    """Return depth (...) of inverse depth q (...): 1 / q, and below `floor` > 0 the tangent of 1 / q.

    Sky and errors, whose inverse depth is zero or negative after the shift, get a depth that is far, positive and
    finite, with a gradient by which a refinement can pull them back.
    """
    guarded = inverse.clip(min=floor)
    return (1 + (guarded - inverse) / guarded) / guarded


@dataclass(frozen=True)
class InverseDepth:
    """Parameters that turn a network's disparity into inverse depth: `disparity - shift`."""

    shift: float
    """In the network's unit."""
    floor: float
    """Inverse depth below which `depth_of` follows its tangent; > 0, in the network's unit."""

    def depth(self, disparity: np.ndarray) -> np.ndarray:
        """Return depth (...) float32 > 0 of disparity (...), in 1 / the network's unit."""
        return depth_of(disparity.astype(np.float32) - np.float32(self.shift), self.floor)


def unshifted_depth(disparity: np.ndarray) -> np.ndarray:
    """Return depth (...) float32 > 0 up to scale, of `disparity` (...) taken as inverse depth without a shift.

    For comparisons where no points are at hand to fit one.
    """
    near = float(np.quantile(disparity, 0.99))
    return InverseDepth(0.0, max(near, _LEAST_INVERSE) / _UNSHIFTED_RANGE).depth(disparity)
