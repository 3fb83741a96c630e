"""The page: a Gradio app on top of `sfmttr` and `export`, which do not import it."""

from __future__ import annotations

import os

# Must be set before gradio is imported: the page contacts no other server.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
