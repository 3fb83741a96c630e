"""From the disparity of a network to depth: one shift for the clip, and a guard against what is not positive.

A network of kind `AFFINE_DISPARITY` gives `disparity = a / depth + b` with unknown `a > 0` and `b`. Once the shift `b`
is known (`align.align_disparity`), `1 / (disparity - b)` is depth up to scale: from there on the network is like any
other whose depth is scale_invariant, in a unit of its own that does not depend on structure-from-motion's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

Values = TypeVar("Values", np.ndarray, Tensor)

_UNSHIFTED_RANGE = 50.0
"""Without points to say better: nothing is taken to be more than this many times as far as what is nearest."""
_LEAST_INVERSE = 1e-6
"""Of the nearest, where a network says that nothing is near."""


def depth_of(inverse: Values, floor: float | Tensor) -> Values:
    """Depth (...) of inverse depth (...): 1 / q, and below `floor` > 0 its tangent.

    So sky and mistakes, whose inverse depth is zero or negative once it is shifted, get a depth that is far, positive
    and finite, and that a refinement still knows the way back from.
    """
    guarded = inverse.clip(min=floor)
    return (1 + (guarded - inverse) / guarded) / guarded


@dataclass(frozen=True)
class InverseDepth:
    """How a network's disparity is read as inverse depth: `disparity - shift`."""

    shift: float
    """In the network's unit."""
    floor: float
    """Inverse depth below which `depth_of` goes on along its tangent; > 0, in the network's unit."""

    def depth(self, disparity: np.ndarray) -> np.ndarray:
        """Depth (...) float32 > 0, in units of 1 / the network's, of its disparity (...)."""
        return depth_of(disparity.astype(np.float32) - np.float32(self.shift), self.floor)


def unshifted_depth(disparity: np.ndarray) -> np.ndarray:
    """Depth (...) float32 > 0 up to scale, of `disparity` (...) taken for inverse depth as it is: what can be done
    without any points."""
    near = float(np.quantile(disparity, 0.99))
    return InverseDepth(0.0, max(near, _LEAST_INVERSE) / _UNSHIFTED_RANGE).depth(disparity)
