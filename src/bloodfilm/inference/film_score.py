"""Score whether a field shows a blood film, from the detections in it.

On a blood film nearly everything is a red cell, and what is not is a nucleated cell or a platelet
between them. Text, a landscape, a tissue section or bare glass may contain objects that are
detected as cells, but these neither cover the foreground, nor are as dense as red cells, nor are
mostly red cells rather than nuclei. The score multiplies the three shares.

Round or regular things of one size (coins, bricks, fruit, a weave) do all that. More evidence tells
them apart. Red cells of one film are of one colour, since they hold one dye: green is absorbed
most, or red where the film is slate-blue, never blue. And where there is nothing but red cells, no
nucleated cell and no platelet, they still differ in thickness, in themselves and from each other.
Where that, or much that is no cell, leaves doubt, the classifier looks at some of the red cells: it
has learnt red cells as something else than white cells, and describes a coin unlike any of them.
Where it has confirmed a nucleated cell, it has looked at the picture already.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import BoxArray, Floats, Image
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.channels import darkest
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.imaging.stain import absorbance_in_middles

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
MIN_FILM_SCORE = 0.45
"""Fields below are no blood film. Of 97 fields of nine cameras, each analysed for itself, 96 have
0.57 or more; of 45 drawn pictures of other things the highest has 0.42."""
MIN_ABSORBANCE = 0.6
"""Absorbance, natural logarithm over three channels, below which a pale cell's colour is that of
noise and lamp: a Raspberry Pi camera's red cells have 0.2 to 0.4."""
MIN_COLOURED = 5
"""Red cells that must be seen to speak of their colour."""
BLUE_TO_GREEN = (1.2, 1.5)
RED_TO_GREEN = (1.7, 2.2)
"""Absorbance of red cells, as ratios of channels: up to the first no doubt, from the second on no
film. 41 fields of eight cameras have at most 1.0, and 1.45 (slate-blue)."""
COLOUR_SPREAD = (0.06, 0.09)
"""Likewise, how far their shares of the absorbance differ from cell to cell: at most 0.045."""
TEXTURE = (0.02, 0.04)
THICKNESS_SPREAD = (0.06, 0.1)
"""Where there are only red cells: variation of absorbance within a cell, and from cell to cell, as
shares; below the first they are too even, from the second on there is no doubt."""
TOO_EVEN = 0.5
"""What perfectly even red cells leave of the score: not enough to refuse a field by itself."""
UNLIKE = (1.0, 1.2)
"""Novelty of the red cells, as a multiple of the most that films of the training have: up to the
first no doubt, from the second on no film."""
LOOKED_AT = 8
"""Red cells that the classifier looks at."""
LEAST_ABSORBANCE = 0.01
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
        variation: in [0.5, 1], whether they vary as cells do, where there is nothing but red cells.
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
    likeness: float = 1.0
    only_red_cells: bool = False
    nucleated: bool = False

    @property
    def is_doubtful(self) -> bool:
        """Whether the classifier should look at the red cells."""
        return not self.nucleated and (self.only_red_cells or self.explained < EXPLAINED)

    def with_novelty(self, novelty: float, limit: float) -> "FilmScore":
        """Return the score where the red cells' novelty is known, and the most that films have."""
        return replace(self, likeness=_falling(novelty / limit, UNLIKE))

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
        return shares * self.colour * self.variation * self.likeness

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
    colour, variation = _red_cell_evidence(drawn, view.to_canonical(red, SCORE_UM))
    only = not len(nucleated) and not len(others)
    if not only:
        variation = 1.0
    return FilmScore(
        explained=float((things & inside).sum() / max(int(things.sum()), 1)),
        red_cells_per_area=len(red) / area,
        red_share=len(red) / cells if cells else 0.0,
        covered=float(things.sum() / seen),
        colour=colour,
        variation=variation,
        only_red_cells=only,
        nucleated=len(nucleated) > 0,
    )


def looked_at(scores: Floats) -> NDArray[np.intp]:
    """Return which red cells the classifier looks at: some, evenly spread from best to worst score.

    >>> looked_at(np.array([0.9, 0.2, 0.5])).tolist()
    [0, 2, 1]
    """
    order = np.argsort(-scores, kind="stable")
    return order[evenly_spread(len(order), LOOKED_AT)]


def _red_cell_evidence(drawn: Image, boxes: BoxArray) -> tuple[float, float]:
    """Return how far red cells have one plausible colour, and how far they vary, in [0, 1].

    Args:
        drawn: the field at `SCORE_UM`, background white.
        boxes: (n, 4) of the red cells in it.
    """
    if len(boxes) < MIN_COLOURED:
        return 1.0, 1.0
    points = absorbance_in_middles(drawn, (BACKGROUND, BACKGROUND, BACKGROUND), boxes)
    cells = np.median(points, axis=1)
    totals = np.maximum(cells.sum(axis=1), LEAST_ABSORBANCE)
    within = float(np.median(points.sum(axis=2).std(axis=1) / totals))
    between = float(totals.std() / totals.mean())
    natural = (1 - _falling(within, TEXTURE)) * (1 - _falling(between, THICKNESS_SPREAD))
    variation = TOO_EVEN + (1 - TOO_EVEN) * natural
    if np.median(totals) < MIN_ABSORBANCE:
        return 1.0, variation
    red, green, blue = np.maximum(np.median(cells, axis=0), LEAST_ABSORBANCE)
    shares = cells / totals[:, None]
    spread = float(np.median(np.abs(shares - np.median(shares, axis=0))))
    colour = (
        _falling(blue / green, BLUE_TO_GREEN)
        * _falling(red / green, RED_TO_GREEN)
        * _falling(spread, COLOUR_SPREAD)
    )
    return colour, variation


def _falling(value: float, ends: tuple[float, float]) -> float:
    """Return 1 up to the first end, 0 from the second on, a straight line between."""
    return float(np.clip((ends[1] - value) / (ends[1] - ends[0]), 0.0, 1.0))


def _drawn(boxes: BoxArray, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which pixels lie in a box (n, 4), one pixel of margin included."""
    mask = np.zeros(shape, dtype=bool)
    low = np.clip(np.floor(boxes[:, :2] - 0.5), 0, None).astype(int)
    high = np.clip(np.ceil(boxes[:, :2] + boxes[:, 2:] + 0.5), 0, None).astype(int)
    for (left, top), (right, bottom) in zip(low, high, strict=True):
        mask[top:bottom, left:right] = True
    return mask
