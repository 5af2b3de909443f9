"""Morphological attributes as data: names, values, and how one schema translates to another."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bloodfilm.core.errors import DataError
from bloodfilm.core.text import shortened


@dataclass(frozen=True)
class Attribute:
    """One morphological attribute with its possible values.

    Attributes:
        name: identifier, also the column name in tables, e.g. `nuclear_shape`.
        values: the possible values, in a fixed order.
        title: display name.
    """

    name: str
    values: tuple[str, ...]
    title: str = ""

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name.replace("_", " "))
        if not self.name or len(self.values) < 2 or len(set(self.values)) != len(self.values):
            raise DataError(
                f"attribute {self.name!r}: needs a name and at least two distinct values"
            )

    def index(self, value: str) -> int:
        """Return the index of a value; `DataError` if it is none of them."""
        try:
            return self.values.index(value)
        except ValueError:
            raise DataError(
                f"attribute {shortened(self.name, 80)!r} has no value {shortened(value, 80)!r}; it "
                f"is one of {shortened(', '.join(self.values), 400)}"
            ) from None


@dataclass(frozen=True)
class Schema:
    """A named, ordered set of attributes."""

    name: str
    attributes: tuple[Attribute, ...]

    def __post_init__(self) -> None:
        if len(self._by_name) != len(self.attributes):
            raise DataError(f"schema {self.name!r}: two attributes share one name; rename one")

    @cached_property
    def _by_name(self) -> dict[str, Attribute]:
        return {attribute.name: attribute for attribute in self.attributes}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The attributes' names, in order."""
        return tuple(attribute.name for attribute in self.attributes)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Attribute:
        try:
            return self._by_name[name]
        except KeyError:
            raise DataError(
                f"schema {shortened(self.name, 80)!r} has no attribute {shortened(name, 80)!r}; it "
                f"has {shortened(', '.join(self.names), 400)}"
            ) from None

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each attribute's logits lie in one row of a model's attribute output."""
        start, slices = 0, {}
        for attribute in self.attributes:
            slices[attribute.name] = slice(start, start + len(attribute.values))
            start += len(attribute.values)
        return slices

    @cached_property
    def width(self) -> int:
        """The number of logits of all attributes together."""
        return sum(len(attribute.values) for attribute in self.attributes)

    def codes(self, values: Mapping[str, str]) -> list[int | None]:
        """Return one code per attribute, `None` where it is unknown; `DataError` on a bad value."""
        return [
            a.index(values[a.name]) if values.get(a.name) is not None else None
            for a in self.attributes
        ]

    def join(self, other: "Schema") -> "Schema":
        """Return both schemas' attributes in one.

        An attribute of the second schema that has the name of one of the first, but other values,
        is prefixed with the second's name; `joined_names` tells its name.

        >>> LLD_SCHEMA.join(WBCATT_SCHEMA).names[7:9]
        ('wbcatt_cell_size', 'cell_shape')
        """
        names = self.joined_names(other)
        added = tuple(
            Attribute(names[a.name], a.values, a.title)
            if names[a.name] == a.name
            else Attribute(names[a.name], a.values, f"{a.title} ({other.name})")
            for a in other.attributes
            if names[a.name] not in self
        )
        return Schema(f"{self.name}+{other.name}", self.attributes + added) if added else self

    def joined_names(self, other: "Schema") -> dict[str, str]:
        """Return the name of each attribute of another schema in the join of both.

        Raises:
            DataError: if a prefixed name is taken, too.
        """
        names = {}
        for attribute in other.attributes:
            name = attribute.name
            if name in self and self[name].values != attribute.values:
                name = f"{other.name}_{name}"
            if name in self and self[name].values != attribute.values:
                raise DataError(
                    f"schemas {self.name!r} and {other.name!r}: attribute {name!r} has other "
                    "values in each; give one of the schemas another name"
                )
            names[attribute.name] = name
        return names

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads back."""
        return {
            "name": self.name,
            "attributes": [
                {"name": a.name, "title": a.title, "values": list(a.values)}
                for a in self.attributes
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Schema":
        """Build a schema from `to_json` data (a user's own file); `DataError` if malformed."""
        try:
            return cls(
                str(data["name"]),
                tuple(
                    Attribute(
                        str(a["name"]), tuple(str(v) for v in a["values"]), str(a.get("title", ""))
                    )
                    for a in data["attributes"]
                ),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"schema: needs name and attributes, each with name and values ({error!r})"
            ) from None


LLD_SCHEMA = Schema(
    "lld",
    (
        Attribute("cell_size", ("small", "medium", "large")),
        Attribute("nuclear_chromatin", ("open", "coarse")),
        Attribute("nuclear_shape", ("regular", "irregular")),
        Attribute("nucleolus", ("inconspicuous", "prominent")),
        Attribute("cytoplasm", ("scanty", "abundant")),
        Attribute("cytoplasmic_basophilia", ("slight", "moderate")),
        Attribute("cytoplasmic_vacuoles", ("absent", "prominent")),
    ),
)
"""The seven attributes of LLD / LeukemiaAttri (arXiv 2405.10803)."""

WBCATT_SCHEMA = Schema(
    "wbcatt",
    (
        Attribute("cell_size", ("small", "big")),
        Attribute("cell_shape", ("round", "irregular")),
        Attribute(
            "nucleus_shape",
            (
                "unsegmented-band",
                "unsegmented-round",
                "unsegmented-indented",
                "segmented-bilobed",
                "segmented-multilobed",
                "irregular",
            ),
        ),
        Attribute("nuclear_cytoplasmic_ratio", ("low", "high"), "nuclear to cytoplasmic ratio"),
        Attribute("chromatin_density", ("loosely", "densely")),
        Attribute("cytoplasm_vacuole", ("no", "yes")),
        Attribute("cytoplasm_texture", ("clear", "frosted")),
        Attribute("cytoplasm_colour", ("light blue", "blue", "purple blue")),
        Attribute("granule_type", ("nil", "small", "round", "coarse")),
        Attribute("granule_colour", ("nil", "pink", "purple", "red")),
        Attribute("granularity", ("no", "yes")),
    ),
)
"""The eleven attributes of WBCAtt (NeurIPS 2023)."""

SCHEMAS = {schema.name: schema for schema in (LLD_SCHEMA, WBCATT_SCHEMA)}

WBCATT_AS_LLD: dict[str, tuple[str, dict[str, str]]] = {
    "cell_size": ("cell_size", {"small": "small", "big": "large"}),
    "chromatin_density": ("nuclear_chromatin", {"loosely": "open", "densely": "coarse"}),
    "nucleus_shape": (
        "nuclear_shape",
        {
            "unsegmented-round": "regular",
            "unsegmented-band": "irregular",
            "unsegmented-indented": "irregular",
            "segmented-bilobed": "irregular",
            "segmented-multilobed": "irregular",
            "irregular": "irregular",
        },
    ),
    "nuclear_cytoplasmic_ratio": ("cytoplasm", {"high": "scanty", "low": "abundant"}),
    "cytoplasm_colour": (
        "cytoplasmic_basophilia",
        {"light blue": "slight", "blue": "moderate", "purple blue": "moderate"},
    ),
    "cytoplasm_vacuole": ("cytoplasmic_vacuoles", {"no": "absent", "yes": "prominent"}),
}
"""WBCAtt's values in LLD's schema; WBCAtt does not annotate nucleoli."""


def wbcatt_to_lld(values: Mapping[str, str]) -> dict[str, str]:
    """Translate one cell's WBCAtt values to LLD's; values without a counterpart are dropped."""
    out: dict[str, str] = {}
    for name, (target, mapping) in WBCATT_AS_LLD.items():
        value = values.get(name)
        if value is not None and value in mapping:
            out[target] = mapping[value]
    return out


def known_values(schema: Schema, values: Mapping[str, str | None]) -> dict[str, str]:
    """Keep the attributes the schema has and whose value is known."""
    return {k: v for k, v in values.items() if v is not None and k in schema}


def schema_named(names: Iterable[str]) -> Schema:
    """Join built-in schemas by name, in order: `["lld", "wbcatt"]`; `DataError` on others."""
    joined: Schema | None = None
    for name in names:
        if name not in SCHEMAS:
            raise DataError(f"no attribute schema {name!r}; built in: {', '.join(SCHEMAS)}")
        joined = SCHEMAS[name] if joined is None else joined.join(SCHEMAS[name])
    if joined is None:
        raise DataError("an attribute schema is needed; built in: " + ", ".join(SCHEMAS))
    return joined
