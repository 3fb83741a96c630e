"""Exit codes of the commands, and errors printed in one line.

0: done. 2: user error, message on stderr. 3: done, but the clip was not refined. 130: interrupted by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from sfmttr.errors import SfmttrError

USAGE_ERROR = 2
NOT_REFINED = 3
INTERRUPTED = 130


def exit_code(program: str, command: Callable[[], int], if_interrupted: str) -> int:
    """Run `command` and return its exit code.

    An `SfmttrError` is printed in one line and gives its own code. Ctrl-C prints `if_interrupted` and gives 130.
    """
    try:
        return command()
    except SfmttrError as error:
        print(f"{program}: {error.cli_message}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {if_interrupted}", file=sys.stderr)
        return INTERRUPTED
