"""Evaluation: errors of depth maps at held-out points and against ground truth.

- `metrics`: the measures, and the protocols of evaluation
- `comparison`: errors of every column (before, aligned, fused, after), overall and by distance
- `ground_truth`: ground-truth files matched to frames
- `ground_plane`: camera height above the ground, for metric scale
"""
