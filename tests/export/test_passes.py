"""Graphs for CPUs: the same function in other operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper

from export.passes.cpu import optimize_for_cpu
from export.passes.elu import decompose_elu
from export.passes.fold_affine import fold_affine_into_conv
from export.passes.graph_editor import GraphEditor
from export.passes.output_range import split_output_range
from export.passes.single_output_conv import (
    single_output_conv_to_conv_transpose,
    single_output_conv_to_depthwise_sum,
)
from export.passes.space_to_depth import is_space_to_depth_head, space_to_depth_head, space_to_depth_stem
from export.passes.upsample_conv import fuse_upsample_conv
from tests.support.graphs import model_of, op_types, run

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def conv_model(outputs: int, inputs: int, kernel: int, *, bias: bool, group: int = 1) -> onnx.ModelProto:
    constants = {"w": normal(outputs, inputs // group, kernel, kernel)} | ({"b": normal(outputs)} if bias else {})
    node = helper.make_node(
        "Conv", ["x", *constants], ["y"], name="head", pads=[kernel // 2] * 4, strides=[2, 1], group=group
    )
    return model_of([node], constants, (2, inputs, 9, 11))


# -------------------------------------------------------------------------------- one output channel


@pytest.mark.parametrize("bias", [True, False])
def test_one_output_channel_is_a_sum_over_input_channels(bias: bool) -> None:
    model = conv_model(1, 6, 3, bias=bias)
    before = model.SerializeToString()
    apart = single_output_conv_to_depthwise_sum(model)
    x = normal(2, 6, 9, 11)
    assert [node.name for node in apart.graph.node] == ["head", "head/sum"]
    np.testing.assert_allclose(run(apart, x), run(model, x), rtol=1e-4, atol=1e-5)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("outputs", "inputs", "kernel", "group"), [(2, 6, 3, 1), (1, 6, 1, 1), (1, 1, 3, 1), (6, 6, 3, 6)]
)
def test_others_stay_as_they_are(outputs: int, inputs: int, kernel: int, group: int) -> None:
    model = conv_model(outputs, inputs, kernel, bias=True, group=group)
    assert single_output_conv_to_depthwise_sum(model) == model
    assert optimize_for_cpu(model) == model


def test_weights_that_two_nodes_share_stay_as_they_are_for_the_other() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="one", pads=[1] * 4),
        helper.make_node("Conv", ["a", "two"], ["b"], name="wide"),
        helper.make_node("Conv", ["b", "w"], ["y"], name="other", pads=[1] * 4),
    ]
    model = model_of(nodes, {"w": normal(1, 4, 3, 3), "two": normal(4, 1, 1, 1)}, (1, 4, 6, 7))
    x = normal(1, 4, 6, 7)
    for rewrite in (single_output_conv_to_depthwise_sum, single_output_conv_to_conv_transpose):
        np.testing.assert_allclose(run(rewrite(model), x), run(model, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 0, 0, 0], [0, 2, 1, 3]])
@pytest.mark.parametrize("size", [(3, 5), (1, 4)])
def test_one_output_channel_told_from_where_a_pixel_goes(size: tuple[int, int], pads: list[int]) -> None:
    pads = [min(pad, side - 1) for pad, side in zip(pads, size * 2, strict=True)]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="head", pads=pads)
    model = model_of([node], {"w": normal(1, 6, *size), "b": normal(1)}, (2, 6, 9, 11))
    spread = single_output_conv_to_conv_transpose(model)
    assert op_types(spread) == ["ConvTranspose"]
    x = normal(2, 6, 9, 11)
    np.testing.assert_allclose(run(spread, x), run(model, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", [{"strides": [2, 1], "pads": [1] * 4}, {"pads": [3] * 4}])
def test_one_output_channel_that_skips_or_lies_outside_stays(given: dict[str, list[int]]) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="head", **given)
    model = model_of([node], {"w": normal(1, 6, 3, 3)}, (2, 6, 9, 11))
    assert single_output_conv_to_conv_transpose(model) == model


# ----------------------------------------------------------------------------------------- scales


def normalised(*steps: tuple[str, str, bool], padded: int = 1) -> onnx.ModelProto:
    """x through `steps` (operator, constant, whether the constant comes first), then a convolution."""
    constants = {
        "white": np.float32(255.0),
        "mean": np.array([0.4, 0.5, 0.45], np.float32)[:, None, None],
        "std": np.array([0.2, 0.25, 0.3], np.float32)[None, :, None, None],
        "rows": normal(3, 8, 1),
        "w": normal(5, 3, 3, 3),
        "b": normal(5),
    }
    nodes, value = [], "x"
    for i, (kind, constant, first) in enumerate(steps):
        inputs = [constant, value] if first else [value, constant]
        nodes.append(helper.make_node(kind, inputs, [f"v{i}"], name=f"network/{kind}_{i}"))
        value = f"v{i}"
    nodes.append(helper.make_node("Conv", [value, "w", "b"], ["y"], name="network.stem/Conv", pads=[padded] * 4))
    return model_of(nodes, constants, (1, 3, 8, 9))


@pytest.mark.parametrize(
    "steps",
    [
        [("Div", "white", False), ("Sub", "mean", False), ("Div", "std", False)],
        [("Mul", "white", True), ("Add", "mean", True)],
        [("Sub", "mean", True), ("Mul", "std", False), ("Add", "white", False)],
        [("Div", "white", False), ("Div", "std", False)],
    ],
)
def test_what_scales_and_shifts_is_one_subtraction(steps: list[tuple[str, str, bool]]) -> None:
    """At the edges, too: zeros that a convolution pads with are zeros after it."""
    model = normalised(*steps)
    quick = fold_affine_into_conv(model)
    assert op_types(quick) == ["Sub", "Conv"]
    x = RNG.uniform(0, 255, (1, 3, 8, 9)).astype(np.float32)
    expected = run(model, x)
    np.testing.assert_allclose(run(quick, x), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "steps",
    [
        [("Sub", "mean", False)],  # is one already
        [("Add", "rows", False), ("Mul", "rows", False)],  # not the same all over the picture
        [("Div", "white", True), ("Div", "white", True)],  # no scale at all
    ],
)
def test_other_arithmetic_stays(steps: list[tuple[str, str, bool]]) -> None:
    model = normalised(*steps)
    assert op_types(fold_affine_into_conv(model)) == op_types(model)


def test_what_others_read_too_stays() -> None:
    model = normalised(("Div", "white", False), ("Sub", "mean", False))
    model.graph.output.append(helper.make_tensor_value_info("v1", onnx.TensorProto.FLOAT, None))
    assert op_types(fold_affine_into_conv(model)) == op_types(model)


# ---------------------------------------------------------------------------------------- squares


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_a_first_layer_over_squares_is_the_same(kernel: int) -> None:
    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], name="network.stem/Conv", pads=[kernel // 2] * 4, strides=[2, 2]
    )
    model = model_of([node], {"w": normal(8, 3, kernel, kernel), "b": normal(8)}, (1, 3, 12, 18), inside=True)
    squares = space_to_depth_stem(model)
    assert op_types(squares)[-2:] == ["SpaceToDepth", "Conv"]
    x = normal(1, 3, 12, 18)
    np.testing.assert_allclose(run(squares, x), run(model, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "hw", "given"),
    [
        (3, (11, 18), {}),  # no whole squares
        (8, (12, 18), {}),  # many channels
        (3, (12, 18), {"strides": [1, 1]}),
        (3, (12, 18), {"pads": [0] * 4}),
        (3, (12, 18), {"dilations": [2, 2]}),
    ],
)
def test_a_first_layer_that_is_not_like_that_stays(
    channels: int, hw: tuple[int, int], given: dict[str, list[int]]
) -> None:
    attributes = {"pads": [1] * 4, "strides": [2, 2]} | given
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="network.stem/Conv", **attributes)
    model = model_of([node], {"w": normal(8, channels, 3, 3)}, (1, channels, *hw), inside=True)
    assert space_to_depth_stem(model) == model
    even = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="a", pads=[1] * 4, strides=[2, 2])],
        {"w": normal(8, 3, 3, 3)},
        (1, 3, 12, 18),
        inside=True,
    )
    assert space_to_depth_stem(even, excluded={"a"}) == even


def tail(pads: tuple[str, str], activation: str = "Elu", width: int = 6, outputs: int = 1) -> onnx.ModelProto:
    """Doubled, a convolution, an activation, a convolution; padded as `pads` says, "" for a convolution's own zeros."""
    constants = {
        "s": np.array([1, 1, 2, 2], np.float32),
        "p": np.array([0, 0, 1, 1] * 2),
        "w1": normal(width, 4, 3, 3),
        "b1": normal(width),
        "w2": normal(outputs, width, 3, 3),
        "b2": normal(outputs),
    }
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["v"], name="network/Resize", **nearest)]
    value = "v"
    for i, pad in enumerate(pads, 1):
        if pad:
            nodes.append(helper.make_node("Pad", [value, "p"], [f"p{i}"], name=f"network.{i}/Pad", mode=pad))
            value = f"p{i}"
        own = [0 if pad else 1] * 4
        end = "y" if i == 2 else "a"
        nodes.append(helper.make_node("Conv", [value, f"w{i}", f"b{i}"], [end], name=f"network.{i}/Conv", pads=own))
        if i == 1:
            nodes.append(helper.make_node(activation, ["a"], ["c"], name="network.1/Act"))
            value = "c"
    return model_of(nodes, constants, (1, 4, 5, 7))


@pytest.mark.parametrize("activation", ["Elu", "Relu"])
@pytest.mark.parametrize("pads", [("reflect", "reflect"), ("reflect", ""), ("", "reflect"), ("edge", ""), ("", "")])
def test_a_tail_over_squares_is_the_same(pads: tuple[str, str], activation: str) -> None:
    model = tail(pads, activation)
    squares = space_to_depth_head(model)
    assert "Resize" not in op_types(squares)
    assert op_types(squares)[-1] == "DepthToSpace"
    assert is_space_to_depth_head(squares, "network.2/Conv")
    assert not is_space_to_depth_head(squares, "network.1/Conv")
    x = normal(1, 4, 5, 7)
    np.testing.assert_allclose(run(squares, x), run(model, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        tail(("reflect", "edge")),  # an edge that is not what is beyond it in squares
        tail(("reflect", ""), width=24),  # enough channels as they are
        tail(("reflect", ""), outputs=2),
        tail(("reflect", ""), "Softplus"),
    ],
)
def test_a_tail_that_is_not_like_that_stays(model: onnx.ModelProto) -> None:
    assert space_to_depth_head(model) == model


def test_a_tail_that_is_read_in_the_middle_stays() -> None:
    model = tail(("reflect", ""))
    model.graph.output.append(helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, None))
    assert space_to_depth_head(model) == model


def test_levels_add_up_to_the_output_within_their_range() -> None:
    model = tail(("reflect", "reflect"))
    x = normal(1, 4, 5, 7)
    exact = run(model, x)
    inside = split_output_range(model, "network.2/Conv", float(exact.min()) - 1, float(exact.max()) + 1)
    np.testing.assert_allclose(run(inside, x), exact, rtol=1e-4, atol=1e-4)
    middle = float(np.median(exact))
    cut = split_output_range(model, "network.2/Conv", middle, float(exact.max()))
    np.testing.assert_allclose(run(cut, x), np.maximum(exact, middle), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------- filtered, then doubled


@pytest.mark.parametrize("activation", ["Elu", "Relu", "Softplus"])
@pytest.mark.parametrize("pad", ["reflect", "edge", ""])
def test_filtered_before_doubled_is_the_same(pad: str, activation: str) -> None:
    model = tail((pad, ""), activation)
    before = model.SerializeToString()
    small = fuse_upsample_conv(model)
    assert "Resize" not in op_types(small)
    weights = {each.name: each.dims for each in small.graph.initializer}
    assert [weights[node.input[1]] for node in small.graph.node if node.op_type == "Conv"] == [
        [24, 4, 2, 2],
        [1, 6, 3, 3],
    ]
    # What is done with each value by itself is done before pixels are put in their places.
    assert (op_types(small).index(activation) < op_types(small).index("ConvTranspose")) == (activation != "Softplus")
    x = normal(1, 4, 5, 7)
    np.testing.assert_allclose(run(small, x), run(model, x), rtol=1e-4, atol=1e-4)
    assert model.SerializeToString() == before


def doubled(factor: float = 2.0, kernel: int = 3, group: int = 1, **given: Any) -> onnx.ModelProto:
    """Doubled and filtered; `given` are attributes of the one or the other."""
    resize: dict[str, Any] = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    conv: dict[str, Any] = {"pads": [1] * 4, "group": group}
    for name, value in given.items():
        (resize if name in resize else conv)[name] = value
    constants = {"s": np.array([1, 1, factor, factor], np.float32), "w": normal(4, 4 // group, kernel, kernel)}
    nodes = [
        helper.make_node("Resize", ["x", "", "s"], ["v"], name="network/Resize", **resize),
        helper.make_node("Conv", ["v", "w"], ["y"], name="network.1/Conv", **conv),
    ]
    return model_of(nodes, constants, (1, 4, 5, 7))


def test_filtered_before_doubled_needs_no_more_than_the_two() -> None:
    model, x = doubled(), normal(1, 4, 5, 7)
    small = fuse_upsample_conv(model)
    assert op_types(small) == ["Conv", "ConvTranspose"]
    np.testing.assert_allclose(run(small, x), run(model, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("outputs", "groups"), [(1, 1), (2, 1), (6, 3), (7, 1), (9, 3), (16, 8)])
def test_pixels_are_put_in_place_two_channels_at_a_time(outputs: int, groups: int) -> None:
    """A group of one output channel and four inputs is what onnxruntime-web's WebGPU computes wrongly."""
    model = tail(("reflect", ""), width=outputs)
    (pixels,) = (node for node in fuse_upsample_conv(model).graph.node if node.op_type == "ConvTranspose")
    assert helper.get_attribute_value(next(each for each in pixels.attribute if each.name == "group")) == groups
    x = normal(1, 4, 5, 7)
    np.testing.assert_allclose(run(fuse_upsample_conv(model), x), run(model, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "other",
    [
        {"factor": 3.0},
        {"mode": "linear"},
        {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "ceil"},
        {"strides": [2, 2]},
        {"pads": [0] * 4},
        {"kernel": 5},
        {"group": 2},
    ],
)
def test_what_is_doubled_or_filtered_otherwise_stays(other: dict[str, Any]) -> None:
    model = doubled(**other)
    assert fuse_upsample_conv(model) == model


def test_what_is_doubled_for_others_too_stays() -> None:
    model = doubled()
    model.graph.output.append(helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, None))
    assert fuse_upsample_conv(model) == model


# -------------------------------------------------------------------------------------------- ELU


def elu(**given: float) -> onnx.ModelProto:
    return model_of([helper.make_node("Elu", ["x"], ["y"], name="act", **given)], {}, (1, 1, 1, 9))


def test_elu_of_exp_is_the_same_where_exp_has_no_number_left() -> None:
    x = np.array([-np.inf, -1e30, -90, -1, -1e-6, 0, 2, 100, np.inf], np.float32).reshape(1, 1, 1, 9)
    quick = decompose_elu(elu())
    assert "Elu" not in op_types(quick)
    np.testing.assert_allclose(run(quick, x), run(elu(), x), rtol=1e-6, atol=1e-7)


def test_another_elu_stays() -> None:
    assert decompose_elu(elu(alpha=2.0)) == elu(alpha=2.0)


# ------------------------------------------------------------------------------------------- tool


def test_a_value_that_is_still_read_cannot_be_taken_away() -> None:
    editor = GraphEditor(tail(("reflect", "")))
    nodes: dict[str, NodeProto] = {node.op_type: node for node in editor}
    with pytest.raises(ValueError, match="no node produces v any more"):
        editor.replace([nodes["Resize"]], [])


def test_names_are_given_once() -> None:
    editor = GraphEditor(tail(("", "")))
    give: Callable[[str], str] = editor.unique_name
    assert [give("w1"), give("w1"), give("new"), give("new")] == ["w1_2", "w1_3", "new", "new_2"]
