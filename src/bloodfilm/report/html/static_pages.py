"""Every page: a template, styles and scripts of its own, nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from bloodfilm.core.text import printable, sentence
from bloodfilm.report.html import formatting

TEMPLATES = resources.files("bloodfilm.report") / "templates"
SCRIPTS = ("state.js", "wall.js", "card.js", "fields.js", "main.js")
"""The report's program, in this order within one function."""


def script_text() -> str:
    """Return the report's program as one script."""
    parts = [(TEMPLATES / "js" / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return '\n"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def render(
    template: str,
    context: Mapping[str, Any],
    unescaped: str = "_chart",
    styles: Sequence[str] = ("base.css",),
) -> str:
    """Return a page; everything is escaped but `Markup` and what is named `*` + `unescaped`.

    The template gets `style`, the text of its style element, and `style_hash` for its policy.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (TEMPLATES / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=formatting.percent, number=formatting.number, clean=printable, sentence=sentence
    )
    environment.globals.update(
        many=formatting.many, interval=formatting.interval, class_title=formatting.class_title
    )
    style = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    digest = hashlib.sha256(style.encode()).digest()
    return environment.get_template(template).render(
        **{k: Markup(v) if k.endswith(unescaped) else v for k, v in context.items()},
        style=Markup(style),
        style_hash=base64.b64encode(digest).decode("ascii"),
    )
