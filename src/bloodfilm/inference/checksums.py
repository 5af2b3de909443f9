"""`SHA256SUMS` of a bundle: checksums of its manifest and graphs, in the format of `sha256sum`.

The manifest holds the graphs' checksums; nothing else holds the manifest's own. Bundles of format
version 2 and later must have the file; where an older one has it, it is verified as well.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from bloodfilm.core.errors import BundleError
from bloodfilm.core.files import sha256_of

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\0]+)")


def sums_of(
    folder: Path, names: Iterable[str], unwritten: Mapping[str, bytes] | None = None
) -> str:
    """Return the text of `SHA256SUMS` for files of a folder, which `sha256sum --check` reads.

    What is in `unwritten`, by name, counts as if it were in the folder.
    """
    known = {name: hashlib.sha256(data).hexdigest() for name, data in (unwritten or {}).items()}
    digests = ((known.get(name) or sha256_of(folder / name), name) for name in names)
    return "".join(f"{digest}  {name}\n" for digest, name in digests)


def read_sums(text: bytes, place: Path) -> dict[str, str]:
    """Return the checksums by file name; `BundleError` if the text is of another form."""
    sums: dict[str, str] = {}
    for i, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        found = _LINE.fullmatch(line)
        if found is None or found[2] in sums:
            raise BundleError(f"{place}: line {i} is no checksum; the bundle is damaged")
        sums[found[2]] = found[1]
    return sums


def check_sum(sums: dict[str, str], path: Path, sha256: str) -> None:
    """Verify a file's checksum; `BundleError` if it differs or is not listed."""
    if sums.get(path.name) != sha256:
        how = "is not the one in" if path.name in sums else "is missing from"
        raise BundleError(
            f"{path}: its checksum {how} {SUMS}; the bundle is damaged, get it again (if you "
            f"changed it yourself, write {SUMS} anew with sha256sum)"
        )
