"""The page: a Gradio app over `sfmttr` and `export`, which know nothing of it."""

from __future__ import annotations

import os

# Before gradio is imported, by whomever: a page that asks no other server for anything.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
