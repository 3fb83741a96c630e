"""Colors, fonts and the head of the page. System fonts: none is requested from another server."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import gradio as gr

from .config import Example

_SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def make() -> gr.themes.Base:
    """Return the theme, light and dark."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=list(_SANS),
        font_mono=list(_MONO),
    ).set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#0d1117",
        block_background_fill="#ffffff",
        block_background_fill_dark="#161b22",
        block_border_width="1px",
        block_border_color="#e3e7ed",
        block_border_color_dark="#272e38",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_title_text_weight="600",
        input_background_fill="#f6f7f9",
        input_background_fill_dark="#0d1117",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#14b8a6",
        button_primary_background_fill_hover_dark="#2dd4bf",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#04211e",
        button_large_text_weight="600",
    )


def head(script: str, examples: Sequence[Example]) -> str:
    """Return the page's own element and the pictures of the examples, for the HTML head."""
    pictures = "".join(
        f"#example-{escape(each.name)}{{background-image:linear-gradient(transparent 45%,rgba(8,12,16,.78)),"
        f"url('page/{escape(each.name)}.webp')}}"
        for each in examples
    )
    return (
        '<meta name="description" content="Film a place and get a depth network that is fine-tuned to it.">'
        f"<style>{pictures}</style><script type='module'>{script}</script>"
    )
