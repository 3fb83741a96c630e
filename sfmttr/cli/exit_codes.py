"""What all command lines share: errors in one line, and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from sfmttr.errors import SfmttrError

STOPPED = 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help says more)\n")


def exit_code(program: str, command: Callable[[], int], stopped: str) -> int:
    """What `command` gives; errors that the user can cure, and Ctrl-C with what `stopped` says, become their codes."""
    try:
        return command()
    except SfmttrError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: stopped; {stopped}", file=sys.stderr)
        return STOPPED
