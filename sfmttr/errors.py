"""Typed errors. Every message is one sentence that says what to do about it.

`SfmttrError` is what the edges (command line, page) catch; each carries the exit code of the command line.
"""

from __future__ import annotations


class SfmttrError(Exception):
    """Base of all errors that a user can cause or cure."""

    exit_code = 2


class ClipError(SfmttrError):
    """The clip cannot be read, or holds too little to work with."""


class ConfigError(SfmttrError):
    """A setting has a value that makes no sense."""


class ReconstructionError(SfmttrError):
    """Structure-from-motion could not run, or a given model cannot be used. (No model found is a result, no error.)"""


class IntrinsicsError(SfmttrError):
    """The given intrinsics are malformed or do not fit the frames."""


class AlignmentError(SfmttrError):
    """Prediction and sparse points cannot be aligned: too few points, or none that agree."""


class DepthKindError(SfmttrError):
    """Two depths of different kinds were about to be mixed."""


class NetworkError(SfmttrError):
    """No network has this name, or it cannot be used for this."""


class WeightsError(SfmttrError):
    """Weights are missing, damaged, or do not fit the network."""


class GroundTruthError(SfmttrError):
    """Ground truth cannot be read or matched to the frames."""


class DeviceError(SfmttrError):
    """The device that was asked for is not there."""


class RunFolderError(SfmttrError):
    """The run folder cannot be written, or is not one of ours."""


class Cancelled(SfmttrError):  # noqa: N818 - stopping is no error
    """The user stopped the run."""

    exit_code = 130
