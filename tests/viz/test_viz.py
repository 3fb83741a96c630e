"""Pictures: sizes, ranges and colours that mean what they say."""

import numpy as np
import pytest

from sfmttr.viz import colormap, overlays, panels, plots
from sfmttr.viz.colormap import ColorRange, color_range, colorize
from sfmttr.viz.overlays import PointClass

RANGE = ColorRange(1.0, 100.0)


def _is_picture(image: np.ndarray) -> bool:
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def _rgb(hw=(60, 80), level=128):
    return np.full((*hw, 3), level, np.uint8)


def test_one_range_for_the_clip_shrugs_off_outliers_and_gaps():
    rng = np.random.default_rng(0)
    depths = [rng.uniform(2, 20, (90, 120)) for _ in range(5)]
    depths[0][:2] = 1e6
    depths[1][:5] = 0
    depths[2][:5] = np.nan
    found = color_range(iter(depths))
    assert 2 <= found.near < 2.5
    assert 19 < found.far <= 20


@pytest.mark.parametrize("depth", [np.zeros((4, 4)), np.full((4, 4), 3.0)])
def test_range_of_nothing_or_of_one_depth_is_still_a_range(depth):
    found = color_range([depth])
    assert found.near < found.far
    assert _is_picture(colorize(depth, found))


@pytest.mark.parametrize("ends", [(0, 1), (2, 1), (1, np.inf), (np.nan, 1)])
def test_impossible_ranges_are_refused(ends):
    with pytest.raises(ValueError, match="near < far"):
        ColorRange(*ends)


def test_near_is_warm_far_is_cold_and_nothing_is_dark():
    near, far, *none = colorize(np.array([[1.0, 100.0, 0.0, np.nan, np.inf]]), RANGE)[0].astype(int)
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert [tuple(colour) for colour in none] == [colormap.NO_DEPTH] * 3


def test_equal_ratios_of_depth_are_equal_steps_of_colour():
    np.testing.assert_allclose(colormap.color_position(np.array([0.5, 1, 10, 100, 1000]), RANGE), [0, 0, 0.5, 1, 1])


def test_beyond_the_range_the_end_colours_stay():
    inside, beyond = colorize(np.array([[1.0, 100.0], [0.2, 500.0]]), RANGE)
    np.testing.assert_array_equal(inside, beyond)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [((1, 100), [1, 2, 5, 10, 20, 50, 100]), ((0.8, 2.9), [0.8, 1, 1.5, 2, 2.5]), ((5.0, 5.3), [5.0, 5.3])],
)
def test_colour_bar_has_round_numbers(ends, expected):
    assert colormap.round_ticks(ColorRange(*ends), 8) == pytest.approx(expected)


@pytest.mark.parametrize("height", [40, 400])
def test_colour_bar_is_as_high_as_asked(height):
    bar = panels.color_bar(RANGE, "metres", height)
    assert _is_picture(bar)
    assert bar.shape[0] == height


def test_comparison_has_one_size_whatever_it_shows():
    sizes = {
        panels.side_by_side([_rgb(), _rgb(), _rgb()], [text, "b", "c"], (RANGE, "m"), 900).shape
        for text in ("frame 1", "a caption that is far too long for the width that it has" * 3)
    }
    assert len(sizes) == 1
    assert sizes.pop()[1] <= 900


@pytest.mark.parametrize(("hw", "stacked"), [((375, 1242), True), ((480, 640), False), ((1280, 720), False)])
def test_wide_panels_are_stacked_and_others_stand_side_by_side(hw, stacked):
    image = panels.side_by_side([_rgb(hw, level) for level in (90, 140, 200)], ["", "", ""], width=1200)
    (first_y, first_x), (last_y, last_x) = (np.argwhere(image[..., 0] == level)[0] for level in (90, 200))
    assert (last_x == first_x) == stacked
    assert (last_y == first_y) != stacked
    assert image.shape[1] <= 1200


def test_points_are_drawn_where_they_are_in_the_colour_of_their_class():
    xy = np.array([[10.0, 10.0], [40.0, 30.0]])
    image = overlays.overlay_points(_rgb(), xy, [PointClass.STRICT, PointClass.RELAXED])
    assert tuple(image[10, 10]) == overlays.CLASS_COLORS[PointClass.STRICT]
    assert tuple(image[30, 40]) == overlays.CLASS_COLORS[PointClass.RELAXED]
    assert image.shape[0] > 60


@pytest.mark.parametrize("width", [80, 300, 1242])
def test_overlays_keep_the_width_of_the_picture(width):
    rgb, xy = _rgb((50, width)), np.array([[5.0, 5.0], [-9.0, 900.0], [20.0, 20.0], [30.0, 9.0]])
    assert overlays.overlay_points(rgb, xy, list(PointClass)).shape[1] == width
    assert overlays.error_overlay(rgb, xy, np.array([0.0, 0.1, np.nan, 9.0])).shape[1] == width
    nothing = np.zeros((0, 2))
    assert _is_picture(overlays.overlay_points(rgb, nothing, []))
    assert _is_picture(overlays.error_overlay(rgb, nothing, np.zeros(0)))


def test_small_errors_are_blue_and_large_ones_red():
    image = overlays.error_overlay(_rgb(), np.array([[10.0, 10.0], [40.0, 30.0]]), np.array([0.0, -0.9])).astype(int)
    assert image[10, 10, 2] > image[10, 10, 0] + 50
    assert image[30, 40, 0] > image[30, 40, 2] + 50


@pytest.mark.parametrize("steps", [0, 1, 5, 300])
def test_curves_of_any_length(steps):
    losses = np.exp(-np.arange(steps) / 50)
    validation = [(step, 0.1 / (1 + step)) for step in range(0, steps, 20)] + [(steps, float("nan"))]
    image = plots.plot_curves(losses, validation)
    assert image.shape == (640, 960, 3)
    assert image[0, 0].tolist() == [255, 255, 255]


def test_contact_sheet_of_different_sizes():
    images = [_rgb((30, 90)), _rgb((90, 30)), _rgb((700, 900)), _rgb((10, 10)), _rgb()]
    image = panels.contact_sheet(images, ["a", "b", "c" * 200, "", "e"], 2, 400)
    assert _is_picture(image)
    assert image.shape[1] <= 400
