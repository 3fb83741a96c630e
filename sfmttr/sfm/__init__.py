"""Structure-from-motion: a `FrameSet` in, a `SparseModel` with its health card (or a `NoModel` with advice) out.

`reconstruction` is the entry point, `retry_policy` lists the settings that are tried, `health` scores the result.
pycolmap is used in this package only, and only in a child process (`worker`).
"""
