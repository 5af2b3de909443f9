"""YAML that came from anywhere: within limits, without aliases, tags and dates."""

from functools import cache
from pathlib import Path
from typing import Any

from bloodfilm.core import DataError

MAX_YAML_BYTES = 16 << 20
MAX_YAML_DEPTH = 64
"""Levels of lists and mappings; the scanner's time grows with the square of the depth."""


def parse_yaml(text: str, path: Path) -> Any:
    """Return the content of YAML text: mappings, lists, numbers, booleans and text.

    Dates stay text. Limits are checked while the text is scanned, before anything is built.

    Raises:
        DataError: that names the line, if it is ill-formed, uses aliases or tags, states a key
            twice, or is nested deeper than `MAX_YAML_DEPTH`.
    """
    import yaml

    try:
        _check(text, path)
        return yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or "ill-formed"
        raise DataError(f"{path}: {place}not YAML ({what}); correct the line") from None


def _check(text: str, path: Path) -> None:
    """Raise if the text uses what small files grow huge by."""
    import yaml

    openings = (
        yaml.BlockMappingStartToken,
        yaml.BlockSequenceStartToken,
        yaml.FlowMappingStartToken,
        yaml.FlowSequenceStartToken,
    )
    endings = yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken
    depth = 0
    for token in yaml.scan(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        where = f"{path}: line {token.start_mark.line + 1}"
        if isinstance(token, yaml.AliasToken):
            raise DataError(f"{where}: uses aliases, by which small files grow huge; write it out")
        if isinstance(token, yaml.TagToken):
            raise DataError(f"{where}: states a type (`!...`), which is not read; remove it")
        depth += isinstance(token, openings) - isinstance(token, endings)
        if depth > MAX_YAML_DEPTH:
            raise DataError(
                f"{where}: nested deeper than {MAX_YAML_DEPTH} levels, which no list of classes "
                "is; check the file"
            )


@cache
def _loader() -> Any:
    """Return a safe loader that leaves dates as they are written and refuses a key stated twice."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            made = super().construct_mapping(node, deep=deep)
            if len(made) == len(node.value):
                return made
            seen: set[Any] = set()
            for key, _ in node.value:
                name = self.construct_object(key)
                if name in seen:
                    raise yaml.constructor.ConstructorError(
                        problem=f"{name!r} is stated twice", problem_mark=key.start_mark
                    )
                seen.add(name)
            return made

    Loader.yaml_implicit_resolvers = {
        first: [(tag, shape) for tag, shape in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in Loader.yaml_implicit_resolvers.items()
    }
    return Loader
