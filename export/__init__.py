"""Export the refined network of a run: verified ONNX files, and a kit to run them elsewhere."""

from __future__ import annotations
