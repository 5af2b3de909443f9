"""Check what a user named for output before any work is done."""

from collections.abc import Iterable
from pathlib import Path


def refuse_inputs(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Raise if an output is an input, another output, or cannot be a file.

    Raises:
        ConfigError: if two outputs are one file.
        DataError: that names the output and says what is in the way.
    """
    from bloodfilm.core import files
    from bloodfilm.core.errors import ConfigError, DataError

    named = [path for path in outputs if path is not None]
    for place, path in enumerate(named):
        if (kind := files.kind_of(path)) not in (None, "file", "stream"):
            raise DataError(f"{path}: is a {kind}; name a file")
        if kind != "stream" and path.resolve() in [other.resolve() for other in named[:place]]:
            raise ConfigError(f"{path}: is named for two outputs; give each a file of its own")
    files.refuse_inputs(named, inputs)
