"""Every page: a template, the report's style and filters, nothing from elsewhere."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from bloodfilm.report.html import formatting

TEMPLATES = resources.files("bloodfilm.report") / "templates"


def render(template: str, context: Mapping[str, Any], unescaped: str = "_chart") -> str:
    """Return a page; everything is escaped but `Markup` and what is named `*` + `unescaped`."""
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
        percent=formatting.percent, number=formatting.number, clean=formatting.clean
    )
    environment.globals.update(
        many=formatting.many, interval=formatting.interval, class_title=formatting.class_title
    )
    return environment.get_template(template).render(
        **{k: Markup(v) if k.endswith(unescaped) else v for k, v in context.items()},
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
    )
