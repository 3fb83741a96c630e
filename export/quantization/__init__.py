"""Static int8 quantization: calibrated ranges, quantized graph, corrected weights."""
