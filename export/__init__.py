"""Freeze the network that a run refined to ONNX files that were checked against it, and pack them to be taken away."""

from __future__ import annotations
