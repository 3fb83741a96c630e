"""Frames of a clip: a video, a folder or a zip file of images in, a `FrameSet` on disk out.

`loader` is the entry point, `selection` chooses the frames, `store` writes them. Videos are
decoded with PyAV, in `video` only.
"""
