"""`sfmttr page`: start the web page. It is imported only here, and only when this command runs."""

from __future__ import annotations

import argparse
from importlib import import_module

from sfmttr.cli.companions import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command; it has no options."""
    parser.set_defaults(command=run)
    parser.description = (
        "Start the web page, like `python app.py` in a clone. The environment variables GRADIO_SERVER_NAME and "
        "GRADIO_SERVER_PORT set its address."
    )


def run(options: argparse.Namespace) -> int:
    """Serve the page until it is interrupted."""
    package = require("demo", ("gradio",), extra="page", needed_by="`sfmttr page`")
    import_module(f"{package}.server").main()
    return 0
