"""`FrameSet` to `SparseModel`: cameras, points and health. The only package that uses pycolmap, in a worker process."""
