"""Clip (video, folder or zip of images) to `FrameSet`: selected frames on disk. Only this package reads with PyAV."""
