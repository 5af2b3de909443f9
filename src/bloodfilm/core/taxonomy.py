"""The taxonomy of cells: a tree, because data sets name cells at different depths.

One set says "WBC", another "immature granulocyte", a third "myelocyte". A label at any node stands
for the sum of the leaves below it, so sets with different vocabularies can train one model, and a
prediction can stop at the depth it is sure of.

"Blast" cuts across the lineages: it is no node, but a label that stands for the sum of the blast
leaves, wherever they are (`BLAST`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from bloodfilm.core.arrays import JsonView
from bloodfilm.core.errors import DataError
from bloodfilm.core.text import shortened

Number = TypeVar("Number", int, float)
BLAST = "blast"
"""The label of a blast whose lineage is not decided, in every tree that marks leaves as blasts."""
SMUDGE_CELL = "smudge cell"


MAX_CLASSES = 2_000
MAX_LEVELS = 64
"""What a tree may have; what is asked of it grows with both."""


@dataclass(frozen=True, slots=True)
class Node:
    """One name in the taxonomy.

    Attributes:
        name: its plain English name, which is also its identity.
        parent: the name of the node above, `None` for the root.
        aliases: other spellings data sets use for it.
        blast: whether the cell counts as a blast (or blast equivalent) in a differential.
    """

    name: str
    parent: str | None = None
    aliases: tuple[str, ...] = ()
    blast: bool = False


def _key(text: str) -> str:
    """Fold case, separators and plural differences out of a spelling."""
    return " ".join(text.replace("_", " ").replace("-", " ").lower().split())


@dataclass(frozen=True)
class Taxonomy:
    """A tree of cell names; the leaves are what a model tells apart.

    Attributes:
        nodes: every node, a parent before its children; the first is the root.

    Raises:
        DataError: if a parent is unknown, a name repeats, there is not exactly one root, or the
            tree has more than `MAX_CLASSES` nodes or `MAX_LEVELS` levels.
    """

    nodes: tuple[Node, ...]
    _index: dict[str, Node] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.nodes) > MAX_CLASSES:
            raise DataError(
                f"taxonomy: {len(self.nodes):,} classes, more than the {MAX_CLASSES:,} of any tree "
                "of cells"
            )
        index: dict[str, Node] = {}
        levels: dict[str | None, int] = {None: 0}
        for node in self.nodes:
            if node.name in index:
                raise DataError(f"taxonomy: {node.name!r} is listed twice; keep one of them")
            if (node.parent is None) != (not index):
                raise DataError(f"taxonomy: {node.name!r}: only the first node has no parent")
            if node.parent is not None and node.parent not in index:
                raise DataError(
                    f"taxonomy: {node.name!r} hangs under {node.parent!r}, which is not listed "
                    "before it; list parents first"
                )
            index[node.name] = node
            levels[node.name] = levels[node.parent] + 1
            if levels[node.name] > MAX_LEVELS:
                raise DataError(f"taxonomy: {node.name!r} lies more than {MAX_LEVELS} levels deep")
        object.__setattr__(self, "_index", index)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every node's name, parents first."""
        return tuple(self._index)

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Names of the nodes without children, in tree order: the order of a model's outputs."""
        parents = {node.parent for node in self.nodes}
        return tuple(node.name for node in self.nodes if node.name not in parents)

    @cached_property
    def blasts(self) -> frozenset[str]:
        """Names of the blasts and blast equivalents, `BLAST` included."""
        marked = frozenset(node.name for node in self.nodes if node.blast)
        return marked | {BLAST} if marked else marked

    @cached_property
    def _blast(self) -> Node | None:
        """What `BLAST` stands for, unless a node has that name or no leaf is a blast."""
        kinds = [leaf for leaf in self.leaves if self._index[leaf].blast]
        if BLAST in self._index or not kinds:
            return None
        return Node(BLAST, self.common(kinds), ("blasts", "blast cell"), blast=True)

    # Asked for every cell of a film, many times over: worked out once.
    @cached_property
    def _paths(self) -> dict[str, tuple[str, ...]]:
        """The names from the root down to each node."""
        paths: dict[str, tuple[str, ...]] = {}
        for node in self.nodes:
            above = () if node.parent is None else paths[node.parent]
            paths[node.name] = (*above, node.name)
        return paths

    @cached_property
    def _leaves_under(self) -> dict[str, tuple[str, ...]]:
        """The leaves at or below each node, `BLAST` included, in tree order."""
        below: dict[str, list[str]] = {name: [] for name in self.names}
        for leaf in self.leaves:
            for name in self._paths[leaf]:
                below[name].append(leaf)
        if self._blast is not None:
            below[BLAST] = [leaf for leaf in self.leaves if leaf in self.blasts]
        return {name: tuple(leaves) for name, leaves in below.items()}

    @cached_property
    def _spellings(self) -> dict[str, str]:
        spellings: dict[str, str] = {}
        for node in self.nodes:
            for spelling in (node.name, *node.aliases):
                spellings.setdefault(_key(spelling), node.name)
        if self._blast is not None:
            for spelling in (BLAST, *self._blast.aliases):
                spellings.setdefault(_key(spelling), BLAST)
        return spellings

    def __contains__(self, name: object) -> bool:
        return name in self._index or (name == BLAST and self._blast is not None)

    def node(self, name: str) -> Node:
        """Return the node of that exact name; `DataError` if there is none.

        `BLAST` is one below the deepest node that all kinds of blast share, without children.
        """
        if name == BLAST and self._blast is not None:
            return self._blast
        try:
            return self._index[name]
        except KeyError:
            raise DataError(
                f"taxonomy: no class {shortened(name, 80)!r}; known classes: "
                + shortened(", ".join(self.names), 400)
            ) from None

    def parent(self, name: str) -> str | None:
        """Return the name of the node above, `None` for the root."""
        return self.node(name).parent

    def children(self, name: str) -> tuple[str, ...]:
        """Return the names right below a node."""
        self.node(name)
        return tuple(node.name for node in self.nodes if node.parent == name)

    def path(self, name: str) -> tuple[str, ...]:
        """Return the names from the root down to a node, both included."""
        found = self._paths.get(name)
        if found is not None:
            return found
        node = self.node(name)  # `BLAST`, which is in no path but its own
        return (*(() if node.parent is None else self._paths[node.parent]), name)

    def is_under(self, name: str, ancestor: str) -> bool:
        """Whether a node is the ancestor or lies below it.

        >>> DEFAULT_TAXONOMY.is_under("monoblast", "blast")
        True
        """
        if ancestor == BLAST and self._blast is not None:
            return name in self.blasts
        return ancestor in self.path(name)

    def leaves_under(self, name: str) -> tuple[str, ...]:
        """Return the leaves a label at this node stands for.

        >>> DEFAULT_TAXONOMY.leaves_under("blast")
        ('myeloblast', 'abnormal promyelocyte', 'monoblast', 'promonocyte', 'lymphoblast')
        """
        self.node(name)
        return self._leaves_under[name]

    def sum_under(self, values: Mapping[str, Number], name: str) -> Number:
        """Return the sum of what the nodes at or below a node have; keys are names of nodes.

        >>> DEFAULT_TAXONOMY.sum_under({"monocyte": 2, "monoblast": 1, "basophil": 4}, "blast")
        1
        """
        return sum(value for node, value in values.items() if self.is_under(node, name))

    def leaf_mask(self, name: str, leaves: Sequence[str] | None = None) -> tuple[bool, ...]:
        """Return, per leaf (of this tree or of the given order), whether it lies under a node."""
        under = set(self.leaves_under(name))
        return tuple(leaf in under for leaf in (leaves if leaves is not None else self.leaves))

    def find(self, spelling: str) -> str | None:
        """Return the node a data set's spelling means, or `None`; case and `_-` do not matter."""
        key = _key(spelling)
        found = self._spellings.get(key)
        if found is None and key.endswith("s"):
            found = self._spellings.get(key[:-1])
        return found

    def common(self, names: Iterable[str]) -> str:
        """Return the deepest node above all the given ones."""
        paths = [self.path(name) for name in names]
        if not paths:
            return self.nodes[0].name
        shared = self.nodes[0].name
        for level in zip(*paths, strict=False):
            if len(set(level)) > 1:
                break
            shared = level[0]
        return shared

    def join(self, other: "Taxonomy") -> "Taxonomy":
        """Return a tree with the nodes of both; this tree's come first, in its order.

        A node of one name is one node. Where the trees hang it under different nodes, it hangs
        under the deeper of them.

        >>> plain = Taxonomy((Node("cell"), Node("lymphocyte", "cell"), Node("smudge", "cell")))
        >>> DEFAULT_TAXONOMY.join(plain).path("lymphocyte")[-2:]
        ('lymphocyte lineage', 'lymphocyte')

        Raises:
            DataError: if the trees contradict each other.
        """
        parents = {node.name: node.parent for node in self.nodes}
        merged = dict(self._index)
        for node in other.nodes:
            known = merged.get(node.name)
            if known is None:
                merged[node.name], parents[node.name] = node, node.parent
                continue
            if known.blast != node.blast:
                raise DataError(f"taxonomy: {node.name!r} is a blast in one tree only")
            aliases = tuple(dict.fromkeys(known.aliases + node.aliases))
            merged[node.name] = replace(known, aliases=aliases)
            parents[node.name] = self._deeper(other, node.name)
        return Taxonomy(tuple(_parents_first(merged, parents)))

    def _deeper(self, other: "Taxonomy", name: str) -> str | None:
        """Return which of a node's parents in two trees lies below the other parent."""
        one, two = self.parent(name), other.parent(name)
        if one == two or two is None:
            return one
        if one is None:
            return two
        if any(one in tree.path(two) for tree in (self, other) if two in tree):
            return two
        if any(two in tree.path(one) for tree in (self, other) if one in tree):
            return one
        raise DataError(
            f"taxonomy: {name!r} lies below {one!r} in one tree and below {two!r} in another; "
            "read one of the sets with the other's tree"
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain data that `from_json` reads back."""
        return [
            {
                "name": n.name,
                "parent": n.parent,
                "aliases": list(n.aliases),
                "blast": n.blast,
            }
            for n in self.nodes
        ]

    @classmethod
    def from_json(cls, data: Iterable[JsonView]) -> "Taxonomy":
        """Build a taxonomy from `to_json` data; `DataError` where a node is malformed."""
        try:
            return cls(
                tuple(
                    Node(
                        str(n["name"]),
                        None if n.get("parent") is None else str(n["parent"]),
                        tuple(str(a) for a in n.get("aliases", ())),
                        bool(n.get("blast", False)),
                    )
                    for n in data
                )
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"taxonomy: a node needs name and parent ({error!r})") from None


def current_default(taxonomy: Taxonomy) -> Taxonomy:
    """Return the default tree where `taxonomy` is an earlier version of it, else `taxonomy`.

    New classes are appended to the default tree, so an earlier version is a beginning of it, but
    for aliases that were given up.
    """
    known = DEFAULT_TAXONOMY.nodes[: len(taxonomy.nodes)]
    nodes = tuple(
        replace(node, aliases=tuple(a for a in node.aliases if a not in RETIRED_ALIASES))
        for node in taxonomy.nodes
    )
    earlier = len(nodes) >= FIRST_VERSION_NODES and nodes == known
    return DEFAULT_TAXONOMY if earlier else taxonomy


FIRST_VERSION_NODES = 26
"""Nodes of the first version of the default tree."""
RETIRED_ALIASES = frozenset({"MYB", "artefact", "artifact"})
"""Spellings that mean different things in different sets, or more than the class they named."""


def _parents_first(nodes: Mapping[str, Node], parents: Mapping[str, str | None]) -> Iterator[Node]:
    """Yield nodes with their parents, a parent before its children."""
    roots = [name for name, parent in parents.items() if parent is None]
    if len(roots) > 1:
        listed = " and ".join(map(repr, roots))
        raise DataError(f"taxonomy: {listed} are roots of trees that share no class above them")
    waiting = dict(parents)
    done: set[str | None] = {None}
    while waiting:
        left = len(waiting)
        for name, parent in list(waiting.items()):
            if parent in done:
                done.add(name)
                yield replace(nodes[name], parent=waiting.pop(name))
        if len(waiting) == left:
            name = next(iter(waiting))
            raise DataError(f"taxonomy: {name!r} lies below itself where the trees are joined")


NUCLEATED, RED_CELL, PLATELET = "nucleated cell", "red cell", "platelet"
"""What a field's objects are told apart as, where no bundle says otherwise: nodes of this tree."""

DEFAULT_TAXONOMY = Taxonomy(
    (
        Node("cell"),
        Node(NUCLEATED, "cell"),
        Node("white cell", NUCLEATED, ("WBC", "white blood cell", "leukocyte", "leucocyte")),
        Node("granulocyte lineage", "white cell", ("granulocytic", "myeloid")),
        Node("myeloblast", "granulocyte lineage", ("MYO", "blast, myeloid"), blast=True),
        Node("immature granulocyte", "granulocyte lineage", ("IG", "immature granulocytes")),
        Node("promyelocyte", "immature granulocyte", ("PMY", "PMO")),
        Node("myelocyte", "immature granulocyte", ("MY",)),
        Node("metamyelocyte", "immature granulocyte", ("MMY", "MMZ")),
        Node("abnormal promyelocyte", "granulocyte lineage", ("faggot cell",), blast=True),
        Node("neutrophil", "granulocyte lineage", ("NEU", "NEUTROPHIL")),
        Node("band neutrophil", "neutrophil", ("BNE", "NGB", "band", "stab")),
        Node("segmented neutrophil", "neutrophil", ("SNE", "NGS", "segmented")),
        Node("eosinophil", "granulocyte lineage", ("EO", "EOS")),
        Node("basophil", "granulocyte lineage", ("BA", "BAS")),
        Node("monocyte lineage", "white cell", ("monocytic",)),
        Node("monoblast", "monocyte lineage", ("MOB",), blast=True),
        Node("promonocyte", "monocyte lineage", ("PRO MONOCYTE",), blast=True),
        Node("monocyte", "monocyte lineage", ("MO", "MON")),
        Node("lymphocyte lineage", "white cell", ("lymphoid",)),
        Node("lymphoblast", "lymphocyte lineage", ("LYB",), blast=True),
        Node("lymphocyte", "lymphocyte lineage", ("LY", "LYT", "typical lymphocyte")),
        Node("atypical lymphocyte", "lymphocyte lineage", ("LYA", "reactive lymphocyte")),
        Node("erythroblast", NUCLEATED, ("ERB", "EBO", "NRBC", "normoblast")),
        Node(RED_CELL, "cell", ("RBC", "red blood cell", "erythrocyte")),
        Node(PLATELET, "cell", ("PLT", "thrombocyte")),
        Node("other object", "cell", ("non-WBC", "no intact white cell")),
        Node(SMUDGE_CELL, "other object", ("smudge", "basket cell", "Gumprecht shadow", "KSC")),
        Node("squashed nucleus", "other object", ("bare nucleus", "crushed cell")),
        Node("giant platelet", "other object", ("large platelet", "PLG", "giant thrombocyte")),
        Node("platelet clump", "other object", ("platelet aggregate", "platelet aggregation")),
        Node("stain deposit", "other object", ("stain precipitate",)),
        Node("overlapping red cells", "other object", ("overlapping cells",)),
    )
)
"""What public sets of blood films label, and what passes for a white cell, in one tree.

LLD's fourteenth class, `none`, is no node: it names an object that nobody could name, and its boxes
are kept with `Cell.ignore`. Promonocytes count as blast equivalents, as the WHO classification does
in acute monocytic leukaemia, and so do the abnormal promyelocytes of APML.
"""
