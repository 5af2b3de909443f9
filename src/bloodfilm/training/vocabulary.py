"""What a run names: classes, attributes and object types, from the configuration and the data.

No names are hard-coded in training: a user's tree and attributes take the place of the
default ones everywhere. Only the defaults of the configuration are written here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bloodfilm.core.attributes import LLD_SCHEMA, SCHEMAS, Schema
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.json_text import read_json_file
from bloodfilm.core.taxonomy import (
    DEFAULT_TAXONOMY,
    NUCLEATED,
    PLATELET,
    RED_CELL,
    Taxonomy,
    current_default,
)
from bloodfilm.inference.manifest import ObjectRoles
from bloodfilm.training.config import DataSection

DEFAULT_OBJECT_TYPES = (NUCLEATED, RED_CELL, PLATELET)
BACKGROUND_LABEL = "background"
"""What `count_as` calls an object that is not to be found."""
DEFAULT_CLASSIFIED, DEFAULT_RULER = NUCLEATED, RED_CELL


@dataclass(frozen=True)
class Vocabulary:
    """The names that networks are trained on.

    Attributes:
        taxonomy: the tree of classes.
        schema: the attributes, in the order of a network's outputs.
        object_types: types that the detector distinguishes, in the order of its outputs: nodes of
            the tree, none above another.
        roles: which type the classifier names, and which is the ruler of the scale.
        other: node of the tree whose leaves the classifier names too, although they are no cells
            of that type but may pass for one (smudge cells, clumps of platelets).
        count_as: object type, or `BACKGROUND_LABEL`, of classes that lie under no object type.

    Raises:
        ConfigError: if the types are not such nodes.
    """

    taxonomy: Taxonomy
    schema: Schema
    object_types: tuple[str, ...]
    roles: ObjectRoles
    other: str | None = None
    count_as: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not self.object_types or len(set(self.object_types)) != len(self.object_types):
            raise ConfigError("data.object_types: needs distinct names")
        for name in self.object_types:
            if name not in self.taxonomy:
                raise ConfigError(
                    f"data.object_types: {name!r} is not in the taxonomy, which has "
                    f"{', '.join(self.taxonomy.names)}"
                )
            above = [n for n in self.taxonomy.path(name)[:-1] if n in self.object_types]
            if above:
                raise ConfigError(
                    f"data.object_types: {name!r} lies under {above[0]!r}; name only one of them"
                )
        self._check_count_as()
        for role, name in self.roles.model_dump().items():
            if name is not None and name not in self.object_types:
                raise ConfigError(
                    f"data.{role}: {name!r} is not among data.object_types "
                    f"({', '.join(self.object_types)})"
                )
        if self.other is not None:
            self._check_other(self.other)

    def _check_other(self, other: str) -> None:
        if other not in self.taxonomy:
            raise ConfigError(
                f"data.other: {other!r} is not in the taxonomy, which has "
                f"{', '.join(self.taxonomy.names)}"
            )
        for name in self.object_types:
            if self.taxonomy.is_under(other, name) or self.taxonomy.is_under(name, other):
                raise ConfigError(f"data.other: {other!r} and the object type {name!r} overlap")

    def _check_count_as(self) -> None:
        for name, kind in self.count_as.items():
            if name not in self.taxonomy or set(self.taxonomy.path(name)) & set(self.object_types):
                raise ConfigError(
                    f"data.count_as: {name!r} is not a class of the taxonomy that lies under no "
                    "object type"
                )
            if kind not in (*self.object_types, BACKGROUND_LABEL):
                raise ConfigError(
                    f"data.count_as: {name!r} = {kind!r}: choose from "
                    f"{', '.join((*self.object_types, BACKGROUND_LABEL))}"
                )

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """The classes that the classifier distinguishes: those of the classified type first."""
        cells = self.taxonomy.leaves_under(self.roles.classified)
        return cells if self.other is None else cells + self.taxonomy.leaves_under(self.other)

    @cached_property
    def classified_id(self) -> int:
        """Place of the classified type among the object types."""
        return self.object_types.index(self.roles.classified)

    @cached_property
    def ruler_id(self) -> int | None:
        """Place of the ruler among the object types."""
        return None if self.roles.ruler is None else self.object_types.index(self.roles.ruler)

    @property
    def stain_types(self) -> tuple[int, int] | None:
        """Places of the classified type and the ruler, whose stains can be separated."""
        return None if self.ruler_id is None else (self.classified_id, self.ruler_id)

    def resolve(self, label: str | None, tree: Taxonomy) -> str | None:
        """Return the node of this tree that a label of another tree stands for.

        It is the label itself or the deepest node above it that this tree has; `None` for no label
        and where there is no such node.
        """
        if label is None or label not in tree:
            return None
        return next((n for n in reversed(tree.path(label)) if n in self.taxonomy), None)

    def object_type_of(self, label: str | None, tree: Taxonomy) -> int | None:
        """Return the place of the object type that a label falls under.

        `None` if it could be of several types, or of none.
        """
        name = self.resolve(label, tree)
        if name is None:
            return None
        path = self.taxonomy.path(name)
        counted = self.counted_as(label, tree)
        return next(
            (i for i, kind in enumerate(self.object_types) if kind in path or kind == counted), None
        )

    def counted_as(self, label: str | None, tree: Taxonomy) -> str | None:
        """Return what `count_as` says of a label or of a class above it; `None` if nothing."""
        name = self.resolve(label, tree)
        path = () if name is None or not self.count_as else self.taxonomy.path(name)
        return next((self.count_as[n] for n in reversed(path) if n in self.count_as), None)

    def is_classified(self, label: str | None, tree: Taxonomy) -> bool:
        """Whether a label names a cell that the classifier is to name."""
        return self.object_type_of(label, tree) == self.classified_id

    def leaf_mask(self, label: str, tree: Taxonomy) -> tuple[bool, ...]:
        """Return, per leaf of `leaves`, whether a label stands for it."""
        name = self.resolve(label, tree)
        if name is None:
            return (False,) * len(self.leaves)
        return self.taxonomy.leaf_mask(name, self.leaves)

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads back."""
        data = {
            "taxonomy": self.taxonomy.to_json(),
            "schema": self.schema.to_json(),
            "object_types": list(self.object_types),
            "roles": self.roles.model_dump(),
            **({} if self.other is None else {"other": self.other}),
        }
        return data | ({"count_as": dict(self.count_as)} if self.count_as else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Vocabulary":
        """Read what `to_json` wrote; `DataError` if a tree or a schema is malformed."""
        return cls(
            Taxonomy.from_json(data["taxonomy"]),
            Schema.from_json(data["schema"]),
            tuple(data["object_types"]),
            ObjectRoles(**data["roles"]),
            data.get("other"),
            data.get("count_as", {}),
        )


DEFAULT_VOCABULARY = Vocabulary(
    DEFAULT_TAXONOMY,
    LLD_SCHEMA,
    DEFAULT_OBJECT_TYPES,
    ObjectRoles(classified=DEFAULT_CLASSIFIED, ruler=DEFAULT_RULER),
)
"""What a configuration that names nothing means, on data sets with the default tree."""


def read_vocabulary(data: DataSection, root: Path, datasets: Iterable[Dataset]) -> Vocabulary:
    """Return the vocabulary of a run.

    Args:
        data: of the configuration.
        root: where its paths start.
        datasets: of the run; their trees are merged where the configuration names none.

    Raises:
        ConfigError: if a file is missing or malformed, trees contradict each other, or a type is
            not in the tree.
    """
    listed = list(datasets)
    if data.taxonomy is not None:
        tree = read_taxonomy(root / data.taxonomy)
    else:
        tree = merge_taxonomies([d.taxonomy for d in listed])
    schema = read_schemas(data.schemas, root, [d.schema for d in listed])
    types = data.object_types or tuple(t for t in DEFAULT_OBJECT_TYPES if t in tree)
    if not types:
        raise ConfigError(
            "data.object_types: the taxonomy has none of the default types "
            f"({', '.join(DEFAULT_OBJECT_TYPES)}); name those that the detector is to find"
        )
    default = DEFAULT_CLASSIFIED if DEFAULT_CLASSIFIED in types else types[0]
    ruler = DEFAULT_RULER if DEFAULT_RULER in types and types != (DEFAULT_RULER,) else None
    classified = data.classified or default
    roles = ObjectRoles(
        classified=classified,
        ruler=data.ruler or (None if ruler == classified else ruler),
    )
    return Vocabulary(tree, schema, tuple(types), roles, data.other, data.count_as)


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a tree from a JSON file: a list of nodes, or an object with that list as `taxonomy`.

    Raises:
        ConfigError: if it cannot be read.
    """
    data = _read_json(path)
    try:
        return Taxonomy.from_json(data["taxonomy"] if isinstance(data, dict) else data)
    except (DataError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is no taxonomy ({error})") from None


def read_schemas(names: Sequence[str], root: Path, of_data: Sequence[Schema]) -> Schema:
    """Join attribute schemas, in order.

    Args:
        names: each the name of a built-in schema, a JSON file (`*.json`), or `data`: the schemas
            of the data sets.
        root: where paths of files start.
        of_data: the schemas of the data sets.

    Raises:
        ConfigError: if one is unknown, missing or malformed.
    """
    found: list[Schema] = []
    for name in names:
        if name == "data":
            found += [s for i, s in enumerate(of_data) if s not in of_data[:i]]
        elif name.endswith(".json"):
            found.append(_read_schema(root / name))
        elif name in SCHEMAS:
            found.append(SCHEMAS[name])
        else:
            raise ConfigError(
                f"data.schemas: no attribute schema {name!r}; built in: {', '.join(SCHEMAS)}; "
                "a file ends in .json; data takes those of the data sets"
            )
    if not found:
        raise ConfigError("data.schemas: name one schema or more")
    joined = found[0]
    for schema in found[1:]:
        joined = joined.join(schema)
    return joined


def _read_schema(path: Path) -> Schema:
    data = _read_json(path)
    try:
        return Schema.from_json(data.get("schema", data))
    except (DataError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: is no attribute schema ({error})") from None


def _read_json(path: Path) -> Any:
    try:
        return read_json_file(path)
    except DataError as error:
        raise ConfigError(str(error)) from None


def merge_taxonomies(trees: Sequence[Taxonomy]) -> Taxonomy:
    """Return one tree with the nodes of all, see `Taxonomy.join`.

    Raises:
        ConfigError: if two trees contradict each other.
    """
    merged: Taxonomy | None = None
    for tree in map(current_default, trees):
        try:
            merged = tree if merged is None else merged.join(tree)
        except DataError as error:
            raise ConfigError(f"{error}; or give one tree as data.taxonomy") from None
    return merged or DEFAULT_TAXONOMY
