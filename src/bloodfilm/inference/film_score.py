"""Score whether a field shows a blood film, from the detections in it.

On a blood film nearly everything is a red cell, and what is not is a nucleated cell or a platelet
between them. Text, a landscape, a tissue section or bare glass may contain objects that are
detected as cells, but these neither cover the foreground, nor are as dense as red cells, nor are
mostly red cells rather than nuclei. The score multiplies the three shares.

Round or regular things of one size (coins, bricks, fruit, a weave) do all that, and so do cells of
other tissues. What passes for red cells must have the physics of red cells, too: their colour, no
nucleus, nearly one size and amount of dye (`red_cell_evidence`). Where there is nothing else, no
nucleated cell and no platelet, they must still vary. Platelets do not outnumber them, and nobody
squeezes a picture much beyond 16:9 to a square.

Where any of that, or much that is no cell, leaves doubt, the classifier looks at some of the red
cells: it has learnt red cells as something else than white cells, and describes a coin unlike any
of them. Where it has confirmed a nucleated cell, it has looked at the picture already.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import BoxArray, Floats, Image
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.channels import darkest
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.inference.red_cell_evidence import falling, red_cell_evidence

SCORE_UM = 0.8
"""Micrometres per pixel of the scored image: a red cell is nine pixels wide."""
DARKER = 20
"""Pixels that differ from the background by less, of 255, are background."""
SHARE_OF_DARK = 0.35
"""So are pixels that differ by less than this share of the difference of the darkest tenth."""
DENSE = 30.0
"""Minimum density of red cells on a film, per 10,000 square micrometres: a third of the usual one,
as in severe anaemia."""
SPARSE = 180.0
"""The same per 10,000 square micrometres of foreground, for films with few cells."""
EXPLAINED = 0.9
"""A sparse film is one of which cells explain at least this share."""
MIN_FILM_SCORE = 0.4
"""Fields below are no blood film (`benchmarks/film_score.py`)."""
UNLIKE = (1.0, 1.2)
"""Novelty of the red cells, as a multiple of the most that films of the training have: up to the
first no doubt, from the second on no film."""
NUCLEATED = (1.0, 3.0)
"""Logit, by the classifier, of its being a nucleated cell that most of the red cells have: at most
0.7 in 443 fields."""
OUTNUMBERED = (1.5, 4.0)
"""Platelets to a red cell: no doubt up to the first, no film from the second on. Normal are 0.05 to
0.1; of 443 fields those of a myeloproliferative neoplasm have up to 0.93."""
MIN_PLATELETS = 10
SQUEEZED = (2.1, 2.4)
"""Pixel aspect ratio, or its inverse, that red cells tell: 16:9 to a square is 1.78."""
UNEQUAL_FILM = 0.6
"""What pale or unequal red cells leave of the score at least where a nucleated cell is confirmed:
not enough to refuse a field by itself. A wrong white point makes them so."""
LOOKED_AT = 8
"""Red cells that the classifier looks at."""
MIN_COVERED = 0.01
"""Minimum foreground share of a field for a valid score."""


@dataclass(frozen=True)
class FilmScore:
    """Evidence that a field shows a blood film.

    Attributes:
        explained: share of the foreground that detected cells cover.
        red_cells_per_area: red cells per 10,000 square micrometres.
        red_share: share of red cells among red and nucleated ones.
        covered: share of the field of view that is not background.
        colour: in [0, 1], whether the red cells are of one colour that red cells have.
        variation: in [0.5, 1], whether they vary as cells do, where there is nothing else.
        anucleate: in [0, 1], whether they have no nucleus.
        alike: in [0, 1], whether they hold dye, nearly as much, and are nearly of one size.
        proportion: in [0, 1], whether platelets and pixels are in a proportion that occurs.
        likeness: in [0, 1], whether they look like red cells to the classifier, where it was asked.
        only_red_cells: whether neither a nucleated cell nor a platelet is among them.
        nucleated: whether a nucleated cell is, which the classifier has confirmed.
    """

    explained: float
    red_cells_per_area: float
    red_share: float
    covered: float
    colour: float = 1.0
    variation: float = 1.0
    anucleate: float = 1.0
    alike: float = 1.0
    proportion: float = 1.0
    likeness: float = 1.0
    only_red_cells: bool = False
    nucleated: bool = False

    @property
    def is_doubtful(self) -> bool:
        """Whether the classifier should look at the red cells."""
        odd = min(self.colour, self.anucleate, self.alike, self.proportion) < 1
        alone = self.only_red_cells or self.explained < EXPLAINED
        return not self.nucleated and (alone or odd)

    def with_answers(
        self, novelty: float, limit: float, nucleated: float | None = None
    ) -> "FilmScore":
        """Return the score where the classifier has looked at the red cells.

        Args:
            novelty: theirs, and `limit`, the most that films have.
            nucleated: logit of their being nucleated cells; `None` if it does not say.
        """
        likeness = falling(novelty / limit, UNLIKE)
        if nucleated is not None:
            likeness *= falling(nucleated, NUCLEATED)
        return replace(self, likeness=likeness)

    @property
    def score(self) -> float:
        """In [0, 1]: their product, with the density relative to that of a film."""
        density = self.red_cells_per_area / DENSE
        if self.explained >= EXPLAINED:
            # At the edge of a film there are few cells, but nothing else either.
            density = max(
                density, self.red_cells_per_area / max(self.covered, MIN_COVERED) / SPARSE
            )
        shares = self.explained * min(1.0, density) * self.red_share
        alike = max(self.alike, UNEQUAL_FILM) if self.nucleated else self.alike
        cells = self.colour * self.variation * self.anucleate * alike
        return shares * cells * self.proportion * self.likeness

    @property
    def empty(self) -> bool:
        """Whether the glass is empty."""
        return self.covered < MIN_COVERED


def film_score(
    image: Image, view: CanonicalView, red: BoxArray, nucleated: BoxArray, others: BoxArray
) -> FilmScore:
    """Score one field.

    Args:
        image: the field, RGB (H, W, 3).
        view: its canonical view.
        red, nucleated, others: boxes (n, 4) x, y, w, h in px of the cells found in it.
    """
    drawn = view.render(image, SCORE_UM)
    depth = BACKGROUND - darkest(drawn).astype(np.int16)
    level = max(float(DARKER), SHARE_OF_DARK * float(np.percentile(depth, 90)))
    things = depth > level
    boxes = np.concatenate([red, nucleated, others]).reshape(-1, 4)
    inside = _drawn(view.to_canonical(boxes, SCORE_UM), things.shape)
    seen = things.size
    if view.round_field is not None:
        whole = (0.0, 0.0, float(view.width), float(view.height))
        disc = view.round_field.mask_of(whole, things.shape[1], things.shape[0])
        things &= disc
        seen = max(int(disc.sum()), 1)
    area = seen * SCORE_UM**2 / 1e4
    cells = len(red) + len(nucleated)
    only = not len(nucleated) and not len(others)
    evidence = red_cell_evidence(drawn, view, red, SCORE_UM)
    return FilmScore(
        explained=float((things & inside).sum() / max(int(things.sum()), 1)),
        red_cells_per_area=len(red) / area,
        red_share=len(red) / cells if cells else 0.0,
        covered=float(things.sum() / seen),
        colour=evidence.colour,
        variation=evidence.variation if only else 1.0,
        anucleate=evidence.anucleate,
        alike=evidence.alike,
        proportion=_proportion(view, len(red), len(others)),
        only_red_cells=only,
        nucleated=len(nucleated) > 0,
    )


def _proportion(view: CanonicalView, red_cells: int, platelets: int) -> float:
    """In [0, 1], whether platelets to red cells, and width to height of a pixel, can be."""
    fits = 1.0
    if platelets >= MIN_PLATELETS:
        fits = falling(platelets / max(red_cells, 1), OUTNUMBERED)
    if view.aspect_source == "measured":
        ratio = view.um_per_px_x / view.um_per_px_y
        fits *= falling(max(ratio, 1 / ratio), SQUEEZED)
    return fits


def looked_at(scores: Floats) -> NDArray[np.intp]:
    """Return which red cells the classifier looks at: some, evenly spread from best to worst score.

    >>> looked_at(np.array([0.9, 0.2, 0.5])).tolist()
    [0, 2, 1]
    """
    order = np.argsort(-scores, kind="stable")
    return order[evenly_spread(len(order), LOOKED_AT)]


def _drawn(boxes: BoxArray, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which pixels lie in a box (n, 4), one pixel of margin included."""
    mask = np.zeros(shape, dtype=bool)
    low = np.clip(np.floor(boxes[:, :2] - 0.5), 0, None).astype(int)
    high = np.clip(np.ceil(boxes[:, :2] + boxes[:, 2:] + 0.5), 0, None).astype(int)
    for (left, top), (right, bottom) in zip(low, high, strict=True):
        mask[top:bottom, left:right] = True
    return mask
