"""Calibration for int8: ranges, corrected weights, and the graph made from them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.passes.graph_editor import GraphEditor
from export.passes.qdq import elu_input_range, elu_output_range, extend_qdq_regions
from export.passes.single_output_conv import head_conv_to_matmul
from export.quantization.calibration import calibrate, elu, min_max, mse_optimal_range
from export.quantization.weight_correction import correct_weights, ensure_bias, least_squares
from tests.support.graphs import model_of, op_types, run

RNG = np.random.default_rng(0)


def rounding_error(values: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(np.mean((rounded - values) ** 2))


# ----------------------------------------------------------------------------------------- ranges


def test_what_is_spread_evenly_keeps_its_range() -> None:
    values = RNG.uniform(-2, 3, 100_000)
    low, high = mse_optimal_range(values)
    assert low == pytest.approx(-2, abs=0.1)
    assert high == pytest.approx(3, abs=0.1)


def test_a_heavy_tail_is_clipped_where_the_error_is_least() -> None:
    values = RNG.standard_t(3, 200_000)
    low, high = mse_optimal_range(values)
    assert values.min() < 1.2 * low
    assert values.max() > 1.2 * high
    ends = np.linspace(2, np.abs(values).max(), 200)
    best = min(rounding_error(values, -end, end) for end in ends)
    assert rounding_error(values, low, high) < 1.05 * best
    assert rounding_error(values, low, high) < 0.9 * rounding_error(values, values.min(), values.max())


def test_ranges_hold_zero() -> None:
    assert mse_optimal_range(np.full(10, 4.0))[0] == 0
    assert mse_optimal_range(np.full(10, -4.0))[1] == 0
    assert mse_optimal_range(np.zeros(10)) == (0, 0)


def test_no_steps_are_spent_where_a_function_is_flat() -> None:
    values = np.concatenate([RNG.uniform(-60, -20, 50_000), RNG.uniform(-1, 6, 50_000)])
    low, high = mse_optimal_range(values, elu)
    assert -8 < low < -2
    assert high == pytest.approx(6, abs=0.2)


def layers(activation: str = "Elu") -> onnx.ModelProto:
    """Two convolutions with an activation between them."""
    constants = {
        "w1": RNG.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "w2": RNG.standard_normal((5, 6, 3, 3)).astype(np.float32) / 7,
        "b2": RNG.standard_normal(5).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="one", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node(activation, ["a"], ["c"], name="between"),
        helper.make_node("Conv", ["c", "w2", "b2"], ["y"], name="two", strides=[2, 1], pads=[1, 0, 1, 2]),
    ]
    return model_of(nodes, constants, (1, 3, 40, 50))


def feeds(count: int = 6) -> list[dict[str, np.ndarray]]:
    return [{"x": RNG.standard_normal((1, 3, 40, 50)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("activation", ["Elu", "LeakyRelu"])
def test_values_are_measured_for_what_reads_them(activation: str) -> None:
    model, given = layers(activation), feeds(2)
    ranges = calibrate(model, ["a", "c", "y"], given)
    whole = min_max(model, "one", given)
    low, high = ranges["a"].range_value
    assert whole[0] < 0.8 * low < 0
    assert 0 < high <= whole[1]
    assert min_max(model, "two", given)[0] <= ranges["y"].range_value[0]


def test_what_is_not_finite_or_no_float_has_no_part_in_ranges() -> None:
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["y"], name="masked"),
        helper.make_node("Shape", ["x"], ["size"], name="size"),
    ]
    model = model_of(nodes, {"mask": np.array([0, -np.inf, 1], np.float32)}, (2, 3))
    ranges = calibrate(model, ["y", "size"], [{"x": np.ones((2, 3), np.float32)}])
    assert set(ranges.keys()) == {"y"}
    assert ranges["y"].range_value[0] == 0
    assert ranges["y"].range_value[1] == pytest.approx(2, abs=0.05)


# ------------------------------------------------------------------------------------------ refit


def test_least_squares_undo_what_was_done_to_inputs() -> None:
    weight = RNG.standard_normal((4, 10))
    x = RNG.standard_normal((10, 5000))
    gain, shift = RNG.uniform(0.5, 2, (10, 1)), RNG.standard_normal((10, 1))
    found, bias = least_squares(weight, gain * x + shift, weight @ x)
    np.testing.assert_allclose(found, weight / gain.T, atol=1e-3)
    np.testing.assert_allclose(bias, -(weight / gain.T) @ shift[:, 0], atol=5e-3)


def test_few_samples_change_the_bias_alone() -> None:
    weight = RNG.standard_normal((4, 10))
    x = RNG.standard_normal((10, 20))
    found, bias = least_squares(weight, x + 1, weight @ x)
    np.testing.assert_array_equal(found, weight)
    np.testing.assert_allclose(bias, -weight.sum(1))


def spoilt(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with a gain and a shift for each channel between the layers: what rounding might do."""
    editor = GraphEditor(model)
    node = next(node for node in editor if node.name == "two")
    gain = editor.add_constant("gain", np.linspace(0.8, 1.3, 6, dtype=np.float32)[:, None, None])
    shift = editor.add_constant("shift", np.linspace(-0.5, 0.9, 6, dtype=np.float32)[:, None, None])
    other = onnx.NodeProto()
    other.CopyFrom(node)
    other.input[0] = "wrong"
    wrong = [helper.make_node("Mul", ["c", gain], ["louder"]), helper.make_node("Add", ["louder", shift], ["wrong"])]
    editor.replace([node], [*wrong, other])
    return editor.model()


def test_weights_make_up_for_what_came_before() -> None:
    model = ensure_bias(layers(), ["one", "two"])
    assert all(len(node.input) == 3 for node in model.graph.node if node.op_type == "Conv")
    found = correct_weights(model, ["one", "two"], spoilt, feeds())
    (other,) = feeds(1)
    exact, before, after = (run(each, other["x"]) for each in (model, spoilt(model), spoilt(found)))
    inside = (slice(None), slice(None), slice(1, -1), slice(2, -2))  # zeros beyond the edge are none of the layer's
    assert np.abs(after - exact)[inside].max() < 0.1 * np.abs(before - exact)[inside].max()
    assert np.abs((after - exact).mean()) < 0.02 * np.abs((before - exact).mean())


def test_a_layer_by_groups_gets_back_its_mean() -> None:
    """A planted shift of each channel, which its bias takes away."""
    weight = RNG.standard_normal((6, 1, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="one", group=6, pads=[1] * 4)
    model = ensure_bias(model_of([node], {"w": weight}, (1, 6, 20, 20)), ["one"])
    shift = np.linspace(-1, 2, 6, dtype=np.float32)

    def shifted(given: onnx.ModelProto) -> onnx.ModelProto:
        editor = GraphEditor(given)
        (conv,) = editor
        other = onnx.NodeProto()
        other.CopyFrom(conv)
        bias = editor.constant(conv.input[2])
        assert bias is not None
        other.input[2] = editor.add_constant("shifted", bias + shift)
        editor.replace([conv], [other])
        return editor.model()

    found = correct_weights(model, ["one"], shifted, [{"x": RNG.standard_normal((1, 6, 20, 20)).astype(np.float32)}])
    x = RNG.standard_normal((1, 6, 20, 20)).astype(np.float32)
    np.testing.assert_allclose(run(shifted(found), x), run(model, x), atol=1e-4)


def test_weights_that_layers_share_become_their_own() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="one", pads=[1] * 4),
        helper.make_node("Conv", ["a", "w"], ["y"], name="two", pads=[1] * 4),
    ]
    model = model_of(nodes, {"w": RNG.standard_normal((3, 3, 3, 3)).astype(np.float32)}, (1, 3, 8, 8))
    apart = ensure_bias(model, ["one", "two"])
    assert len({name for node in apart.graph.node for name in node.input[1:]}) == 4
    x = RNG.standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(apart, x), run(model, x), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------- eight bits


def between(node: str, low: float, high: float, after: tuple[float, float], **given: object) -> onnx.ModelProto:
    """x in 8 bits of a range, through one operator, and in 8 bits of another range."""
    constants: dict[str, np.ndarray] = {"p": np.array([0, 0, 1, 1] * 2), "s": np.array([1, 1, 2, 2], np.float32)}
    for name, (start, end) in {"1": (low, high), "2": after}.items():
        constants[f"scale{name}"] = np.asarray(np.float32((end - start) / 255))
        constants[f"zero{name}"] = np.asarray(np.uint8(round(-start / ((end - start) / 255))))
    inputs = {"Pad": ["d1", "p"], "Resize": ["d1", "", "s"]}.get(node, ["d1"])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale1", "zero1"], ["q1"]),
        helper.make_node("DequantizeLinear", ["q1", "scale1", "zero1"], ["d1"]),
        helper.make_node(node, inputs, ["m"], name=f"network/{node}", **given),
        helper.make_node("QuantizeLinear", ["m", "scale2", "zero2"], ["q2"]),
        helper.make_node("DequantizeLinear", ["q2", "scale2", "zero2"], ["y"]),
    ]
    return model_of(nodes, constants, (1, 4, 12, 16))


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.mark.parametrize(
    ("node", "given"), [("Pad", {"mode": "reflect"}), ("Pad", {"mode": "edge"}), ("Resize", NEAREST)]
)
def test_pixels_move_as_8_bit_numbers(node: str, given: dict[str, str]) -> None:
    model = between(node, -2, 3, (-2, 3), **given)
    moved = extend_qdq_regions(model)
    assert op_types(moved).count("QuantizeLinear") == op_types(moved).count("DequantizeLinear") == 1
    x = RNG.standard_normal((1, 4, 12, 16)).astype(np.float32)
    np.testing.assert_array_equal(run(moved, x), run(model, x))


@pytest.mark.parametrize(
    ("node", "after", "given"),
    [
        ("Pad", (-2, 3), {"mode": "constant"}),  # its zeros are no 8-bit zeros
        ("Pad", (-3, 3), {"mode": "reflect"}),  # other steps
        ("Resize", (-2, 3), {"mode": "linear"}),
    ],
)
def test_what_does_more_than_move_stays(node: str, after: tuple[float, float], given: dict[str, str]) -> None:
    model = between(node, -2, 3, after, **given)
    assert extend_qdq_regions(model) == model


@pytest.mark.parametrize(("low", "high"), [(-4.0, 3.0), (-5.0, 9.0), (-1.5, 3.2)])
def test_an_elu_of_tables(low: float, high: float) -> None:
    low, high = elu_input_range(low, high)
    after = elu_output_range(high)
    model = between("Elu", low, high, after)
    tables = extend_qdq_regions(model)
    assert "Elu" not in op_types(tables)
    assert all(not node.domain for node in tables.graph.node)
    x = np.linspace(low - 2, high + 2, 4 * 12 * 16, dtype=np.float32).reshape(1, 4, 12, 16)
    step = (after[1] - after[0]) / 255
    apart = np.abs(run(tables, x) - run(model, x))
    assert apart.max() < 0.015 + 1.5 * step  # what a sigmoid is off by, and once more of rounding
    (added,) = (node for node in tables.graph.node if node.op_type == "Add")
    assert added.name.startswith("network/Elu")


def test_an_elu_without_room_stays() -> None:
    for low, high, after, given in (
        (-4.0, 1.0, elu_output_range(1.0), {}),
        (-4.0, 4.0, (-1.0, 4.013), {}),  # 1 is no whole number of steps
        (-4.0, 4.0, elu_output_range(4.0), {"alpha": 0.5}),
    ):
        model = between("Elu", low, high, after, **given)
        assert extend_qdq_regions(model) == model


def test_one_channel_of_8_bit_numbers_is_a_product() -> None:
    model = between("Identity", -2, 3, (-2, 3))
    weight = RNG.standard_normal((1, 4, 1, 1)).astype(np.float32)
    editor = GraphEditor(model)
    last = list(editor)[-1]
    read = helper.make_node("DequantizeLinear", list(last.input), ["d2"])
    head = [editor.add_constant("w", weight), editor.add_constant("b", np.array([0.5], np.float32))]
    editor.replace([last], [read, helper.make_node("Conv", ["d2", *head], ["y"], name="network.head/Conv")])
    model = editor.model()
    product = head_conv_to_matmul(model)
    assert "Conv" not in op_types(product)
    x = RNG.standard_normal((1, 4, 12, 16)).astype(np.float32)
    np.testing.assert_allclose(run(product, x), run(model, x), rtol=1e-5, atol=1e-5)
    assert product.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
