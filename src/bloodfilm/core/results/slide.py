"""What the result of a slide keeps beside its cells: which part was analysed, and what it holds."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from bloodfilm.core.figures import number, whole

ZoneKind = Literal["found", "region", "whole"]
"""The monolayer, as it was found; shapes that the user gave; the whole slide."""


@dataclass(frozen=True, slots=True)
class SlideRecord:
    """The analysed part of a slide.

    Attributes:
        zone: how the part was chosen.
        zone_mm2: area of that part, square millimetres.
        analyzed_mm2: area in which cells were looked for: less for a sample, or where tiles failed.
        counts: objects in that area by type. The cells of the result are those of the type that the
            classifier names; red cells and platelets are only counted.
        tiles: analysed, without failed ones.
        failed_tiles: without a result.
        fields: size of the random sample of fields that was asked for; `None` for all of the zone.
        seed: of the sample.
    """

    zone: ZoneKind
    zone_mm2: float
    analyzed_mm2: float
    counts: Mapping[str, int] = field(default_factory=dict)
    tiles: int = 0
    failed_tiles: int = 0
    fields: int | None = None
    seed: int | None = None

    def density_per_mm2(self, object_type: str) -> float | None:
        """Return objects of a type per square millimetre; `None` where no area was analysed.

        >>> SlideRecord("found", 2.0, 2.0, {"red cell": 9000}).density_per_mm2("red cell")
        4500.0
        """
        if self.analyzed_mm2 <= 0:
            return None
        return self.counts.get(object_type, 0) / self.analyzed_mm2

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {
            **asdict(self),
            "zone_mm2": round(self.zone_mm2, 4),
            "analyzed_mm2": round(self.analyzed_mm2, 4),
            "counts": dict(sorted(self.counts.items())),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SlideRecord":
        """Read what `to_json` wrote; DataError, KeyError, TypeError, ValueError if not."""
        if data["zone"] not in get_args(ZoneKind):
            raise ValueError(f"zone {data['zone']!r}")
        sample, seed = data["fields"], data["seed"]
        return cls(
            zone=data["zone"],
            zone_mm2=number(data["zone_mm2"], "zone_mm2", 0),
            analyzed_mm2=number(data["analyzed_mm2"], "analyzed_mm2", 0),
            counts={str(k): whole(v, "counts") for k, v in data["counts"].items()},
            tiles=whole(data["tiles"], "tiles"),
            failed_tiles=whole(data["failed_tiles"], "failed_tiles"),
            fields=None if sample is None else whole(sample, "fields"),
            seed=None if seed is None else whole(seed, "seed"),
        )


def sum_counts(records: Iterable[SlideRecord]) -> dict[str, int]:
    """Return the objects of several parts by type."""
    total: Counter[str] = Counter()
    for record in records:
        total.update(record.counts)
    return dict(sorted(total.items()))
