"""Optional graph passes: the same function in operators that onnxruntime's CPU kernels run faster.

Each pass is a function from an ONNX model to an ONNX model. It leaves a graph that does not match its pattern as it is.
Its output equals the input's up to rounding, except where its docstring says otherwise. All passes use standard ONNX
operators, so the files also run elsewhere, though not necessarily faster there.

fp32 (`cpu.optimize_for_cpu`), in this order:

1. `fold_affine.fold_affine_into_conv`: scales and shifts before a Conv become one Sub and scaled weights.
2. `upsample_conv.fuse_upsample_conv`: nearest 2x Resize + 3x3 Conv becomes 2x2 Conv + ConvTranspose.
3. `single_output_conv.single_output_conv_to_conv_transpose`: a Conv with one output channel becomes a ConvTranspose.
4. `elu.decompose_elu`: Elu becomes Clip, Exp, Sub, Max.

fp16 uses none of them. int8 (`quantization.quantizer.Int8Quantizer`), in this order:

- before calibration: `fold_affine_into_conv`, then `space_to_depth.space_to_depth_ends` (stem, then head), then
  `single_output_conv.single_output_conv_to_depthwise_sum`, then `output_range.split_output_range` for heads that
  `space_to_depth_head` converted;
- after every run of the quantizer: `qdq.extend_qdq_regions`;
- once at the end: `single_output_conv.head_conv_to_matmul`.

What they buy, in ms of CPU time on one thread at the network's working size, and mean relative difference to fp32 over
8 frames of a street clip (medians of 5 to 7 interleaved runs):

| graph | bundled, 224 x 576 | RT-MonoDepth-S, 256 x 640 |
|---|---|---|
| fp32 as torch.onnx exports it | 10.8 | 53.0 |
| `fold_affine_into_conv` alone | 10.8 (1.01x) | 52.0 (1.02x) |
| `fuse_upsample_conv` alone | 10.9 (0.99x) | 49.3 (1.07x) |
| `single_output_conv_to_conv_transpose` alone | 11.1 (0.98x) | 49.9 (1.06x) |
| `decompose_elu` alone | 10.9 (0.99x) | 48.6 (1.09x) |
| all four | 11.0 (0.98x) | 38.8 (1.37x) |
| int8 by onnxruntime's `quantize_static` (QDQ, per channel, MinMax) | 5.4 (2.02x), 1.1e-2 | 32.7 (1.62x), 4.8e-2 |
| the same with the first and last Conv in float | 4.9 (2.19x), 1.1e-2 | 35.4 (1.50x), 4.1e-2 |
| int8 by `Int8Quantizer` | 4.3 (2.50x), 8.2e-3 | 17.1 (3.10x), 1.9e-2 |

So the fp32 passes pay off for decoders of the Monodepth family (Elu, reflection padding, nearest upsampling), and buy
nothing for the bundled network.

The passes edit graphs through `graph_editor.GraphEditor` and find their operators with `patterns`.
"""
