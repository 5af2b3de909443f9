"""The domains of a run: which data set and acquisition each sample comes from."""

from collections.abc import Iterable
from dataclasses import dataclass, field

UNKNOWN_DOMAIN = -1
"""Of a sample from several domains, or from none of the run's."""


@dataclass(frozen=True)
class DomainTable:
    """Names of domains; a batch carries their places.

    >>> DomainTable.of(["b", "a", "b"]).index("b")
    1
    """

    names: tuple[str, ...]
    _places: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {name: i for i, name in enumerate(self.names)})

    @classmethod
    def of(cls, names: Iterable[str]) -> "DomainTable":
        """Return the table of the names that occur, sorted."""
        return cls(tuple(sorted(set(names))))

    def index(self, name: str) -> int:
        """Return the place of a domain, `UNKNOWN_DOMAIN` if it is not in the table."""
        return self._places.get(name, UNKNOWN_DOMAIN)
