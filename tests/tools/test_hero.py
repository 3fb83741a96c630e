"""The pictures at the top of the page."""

from __future__ import annotations

import numpy as np

from sfmttr.viz.overlays import error_table
from tools.hero import NO_TRUTH, error_picture


def test_right_is_blue_wrong_is_red_and_sky_is_neither() -> None:
    true = np.full((20, 30), 4.0, np.float32)
    true[:5] = 0.0
    depth = 2.0 * np.full((20, 30), 4.0, np.float32)  # another unit is no error
    depth[15:, 20:] *= 1.5
    picture = error_picture(depth, true)
    assert picture.dtype == np.uint8
    assert tuple(picture[0, 0]) == NO_TRUTH
    assert (picture[8, 3] == error_table()[0]).all()
    assert (picture[18, 25] == error_table()[-1]).all()
