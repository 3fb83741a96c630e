"""Test-time refinement: from a sparse model and a network to refined weights.

- `alignment`: scale (and shift) between SfM depth and predictions
- `trust_gate`: whether the reconstruction may supervise the network
- `observations`: sparse points in frames, split into training, validation and test
- `weighting`: weights of points
- `targets`: selection of observations; depth that each frame is trained on
- `losses`, `photometric_loss`: what is minimized
- `trainable`, `schedule`, `forward`, `task`, `loop`: the loop and its parts
- `fusion`: predictions corrected by sparse points, without training
- `backend`: the device that predicts and refines
"""
