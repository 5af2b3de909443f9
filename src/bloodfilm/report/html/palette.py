"""Colours by class: eight hues that colour-blind readers tell apart, never the only sign."""

from dataclasses import dataclass

from bloodfilm.core.taxonomy import BLAST, PLATELET, RED_CELL, Taxonomy

# Okabe and Ito, "Color Universal Design" (2008), plus Tol's wine for the erythroblast. The first
# family that a node belongs to gives its colour.
_BLAST = "#d55e00"
_FAMILIES = (
    ("immature granulocyte", "#56b4e9"),
    ("neutrophil", "#0072b2"),
    ("eosinophil", "#e69f00"),
    ("basophil", "#cc79a7"),
    ("monocyte lineage", "#009e73"),
    ("lymphocyte lineage", "#f0e442"),
    ("erythroblast", "#882255"),
)
NEUTRAL = "#a8a8b3"
_OTHER = {RED_CELL: "#c98b86", PLATELET: "#8f9bc4"}


@dataclass(frozen=True, slots=True)
class CellStyle:
    """How a cell is drawn: colour (#rrggbb), and dashed where the model did not decide."""

    colour: str
    dashed: bool

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as 0..255 numbers."""
        value = int(self.colour[1:], 16)
        return value >> 16, value >> 8 & 255, value & 255


def cell_style(label: str, taxonomy: Taxonomy) -> CellStyle:
    """Return how cells of this name are drawn; a name outside the tree is drawn as undecided."""
    if label not in taxonomy:
        return CellStyle(_OTHER.get(label, NEUTRAL), label not in _OTHER)
    dashed = label not in taxonomy.leaves
    if label in taxonomy.blasts:
        return CellStyle(_BLAST, dashed)
    path = taxonomy.path(label)
    for family, colour in _FAMILIES:
        if family in path:
            return CellStyle(colour, dashed)
    return CellStyle(_OTHER.get(label, NEUTRAL), dashed)


def legend(labels: set[str], taxonomy: Taxonomy) -> tuple[tuple[str, CellStyle], ...]:
    """Return name and drawing of the colours in use, in tree order."""
    entries: dict[str, CellStyle] = {}
    for name in (*taxonomy.names, BLAST):
        if name not in labels:
            continue
        drawn = cell_style(name, taxonomy)
        if drawn.dashed and drawn.colour == NEUTRAL:
            continue
        entries.setdefault(_family(name, drawn, taxonomy), CellStyle(drawn.colour, False))
    if any(cell_style(label, taxonomy).dashed for label in labels):
        entries["dashed: not named more closely"] = CellStyle(NEUTRAL, True)
    return tuple(entries.items())


def _family(name: str, drawn: CellStyle, taxonomy: Taxonomy) -> str:
    if drawn.colour == _BLAST:
        return "blast or blast equivalent"
    for family, colour in _FAMILIES:
        if colour == drawn.colour:
            return (
                f"{family}, no blast"
                if taxonomy.blasts & set(taxonomy.leaves_under(family))
                else family
            )
    return "other" if drawn.dashed else name
