"""Typed errors. Every message is one sentence that says what is wrong and what to do about it.

The command line and the page catch `SfmttrError` and show its message without a traceback.
"""

from __future__ import annotations


class SfmttrError(Exception):
    """Base of all errors that a user can cause or cure.

    `cli_hint` is a further sentence that names options of the command line. Only the command line shows it.
    """

    exit_code = 2
    """Exit code of the command line."""

    def __init__(self, *args: object, cli_hint: str = "") -> None:
        super().__init__(*args)
        self.cli_hint = cli_hint

    @property
    def cli_message(self) -> str:
        """Message for the command line: the hint follows the message."""
        return f"{self} {self.cli_hint}" if self.cli_hint else str(self)


class ClipError(SfmttrError):
    """The clip cannot be read, or holds too little to work with."""


class ConfigError(SfmttrError):
    """A setting has an invalid value."""


class ReconstructionError(SfmttrError):
    """Structure-from-motion could not run, or a given model cannot be used.

    Finding no model is not an error: it is a `NoModel`.
    """


class IntrinsicsError(SfmttrError):
    """The given intrinsics are malformed or do not fit the frames."""


class AlignmentError(SfmttrError):
    """Prediction and sparse points cannot be aligned: there are too few points, or too few that agree."""


class DepthKindError(SfmttrError):
    """Depths of different kinds (`DepthKind`) would be mixed."""


class NetworkError(SfmttrError):
    """No network has this name, or it does not support what is asked for."""


class WeightsError(SfmttrError):
    """Weights are missing, damaged, or do not fit the network."""


class GroundTruthError(SfmttrError):
    """Ground truth cannot be read or matched to the frames."""


class DeviceError(SfmttrError):
    """The chosen device is not available."""


class RunFolderError(SfmttrError):
    """The run folder cannot be written, or was not made by sfmttr."""


class Cancelled(SfmttrError):  # noqa: N818 - stopping is not an error
    """The user stopped the run."""

    exit_code = 130
