"""Pages without a script: a template, the report's style, nothing from elsewhere."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from bloodfilm.report.html import formatting


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return a page; everything in the context is escaped but values named `*_chart` or `chart`."""
    import jinja2
    from markupsafe import Markup

    folder = resources.files("bloodfilm.report") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=formatting.percent, number=formatting.number, clean=formatting.clean
    )
    environment.globals.update(many=formatting.many)
    return environment.get_template(template).render(
        **{k: Markup(v) if k.endswith("_chart") else v for k, v in context.items()},
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
    )
