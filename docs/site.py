"""Pages of the documentation site that are made of other files: mkdocs calls these hooks.

README, the model card, CONTRIBUTING and CHANGELOG stand where people look for them in the
repository; the site shows the same files. One reference page per package comes from the docstrings.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "bloodfilm"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    "src/bloodfilm/bundles/default/MODEL_CARD.md": "model-card.md",
}
RECORDS = ("benchmarks/results/*.json", "benchmarks/*.json")
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def packages() -> list[str]:
    """Names of the packages inside `bloodfilm`, sorted."""
    return sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))


def on_files(files: Files, config: Any) -> Files:
    """Add the pages made of other files."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text("utf-8")
        if source == "LICENSE":
            text = f"# Licence\n\n```\n{text}\n```\n"
        files.append(File.generated(config, page, content=_relinked(text, source)))
    for pattern in RECORDS:
        for path in sorted(ROOT.glob(pattern)):
            uri = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, uri, content=path.read_text("utf-8")))
    listed = []
    for name in packages():
        text = f"# bloodfilm.{name}\n\n::: bloodfilm.{name}\n"
        files.append(File.generated(config, f"reference/{name}.md", content=text))
        listed.append(f"- [bloodfilm.{name}]({name}.md)")
    api = "# Python\n\n::: bloodfilm\n    options:\n      show_submodules: false\n\n## Packages\n\n"
    text = api + "\n".join(listed) + "\n"
    files.append(File.generated(config, "reference/index.md", content=text))
    return files


def on_config(config: Any) -> Any:
    """Put the reference pages into the navigation."""
    pages = ["reference/index.md", *(f"reference/{name}.md" for name in packages())]
    config.nav = [
        {"Python": pages} if item == {"Python": "reference/"} else item for item in config.nav
    ]
    return config


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that leave `docs/` for the repository into links of the site."""
    if page.file.generated_by:
        return markdown
    return _relinked(markdown, f"docs/{page.file.src_uri}")


def _relinked(text: str, source: str) -> str:
    """Text of a repository file with its links relative to the site's root page of that file."""
    target = PAGES.get(source, source.removeprefix("docs/"))
    depth = "../" * target.count("/")

    def moved(found: re.Match[str]) -> str:
        path = (ROOT / source).parent.joinpath(found[1]).resolve()
        if not path.is_relative_to(ROOT):
            return found[1]
        uri = path.relative_to(ROOT).as_posix()
        if path.is_dir() and uri.startswith("benchmarks"):
            return f"{depth}how-it-works.md"
        return depth + PAGES.get(uri, uri.removeprefix("docs/"))

    return LINK.sub(moved, text)
