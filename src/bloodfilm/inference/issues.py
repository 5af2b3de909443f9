"""Issues of cells and fields: what limits how far a result can be trusted."""

from collections.abc import Iterator
from dataclasses import asdict

from bloodfilm.core import issue_codes
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.results import CellResult
from bloodfilm.core.text import below
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.sharpness import SHARP_ENOUGH
from bloodfilm.inference.classifier import CellClassification
from bloodfilm.inference.film_score import DENSE, MIN_FILM_SCORE, FilmScore

SURE_VIEW = 0.5
_ODD = {
    "colour": "has another colour",
    "variation": "is too even",
    "anucleate": "has something dark in its middle",
    "alike": "is pale, or too unequal in absorbance or size",
    "proportion": "is outnumbered by platelets or squeezed too much",
    "likeness": "does not look like red cells to the classifier",
}
"""What a share below 1 of a `FilmScore` says."""


def cell_issues(
    classified: CellClassification, at_edge: bool, like_red: bool, contrast: float
) -> Iterator[Issue]:
    """Yield the issues of a cell.

    Args:
        classified: what the classifier says of it.
        at_edge: whether the edge of the field cuts it.
        like_red: whether it absorbs hardly more than its neighbouring red cells.
        contrast: its stain contrast to them.
    """
    if at_edge:
        yield issue(issue_codes.CUT_BY_EDGE, "cut by the edge of the field")
    if classified.novel:
        yield issue(issue_codes.UNFAMILIAR, "unlike the cells the model was trained on")
    if like_red:
        message = "low stain contrast to neighbouring red cells"
        fact = round(float(contrast), 3)
        yield issue(issue_codes.LOW_STAIN_CONTRAST, message, stain_contrast=fact)
    if classified.nucleated is not None and classified.nucleated < 0.5:
        message = "low probability of being a nucleated cell"
        fact = round(classified.nucleated, 4)
        yield issue(issue_codes.LOW_NUCLEATED_PROBABILITY, message, nucleated_probability=fact)


def not_a_film(score: FilmScore) -> Issue:
    """Return the issue of a field that does not show a blood film."""
    message = (
        f"this does not look like a blood film (score {score.score:.2f}, {MIN_FILM_SCORE:g} is "
        f"needed): the cells found account for {score.explained:.0%} of what is in the picture, "
        f"with {score.red_cells_per_area:.0f} red cells per 10,000 um2 (a film has {DENSE:g} or "
        f"more); {score.red_share:.0%} of the red and nucleated cells are red cells"
    )
    odd = [text for name, text in _ODD.items() if getattr(score, name) < 1]
    if odd:
        message += f"; what passes for red cells {', '.join(odd)}"
    facts = {name: round(value, 4) for name, value in asdict(score).items()}
    return issue(issue_codes.NOT_A_FILM, message, score=round(score.score, 4), **facts)


def field_issues(
    view: CanonicalView, cells: tuple[CellResult, ...], sharpness: float
) -> list[Issue]:
    """Return the issues that limit how far a field can be trusted."""
    # With a reliable scale from the folder, few red cells in this field do not matter.
    sources = {view.scale_source, view.aspect_source}
    settled = sources == {"pooled"} and view.confidence >= SURE_VIEW
    issues = [
        found for found in view.issues if not settled or found.code == issue_codes.METADATA_CONFLICT
    ]
    if view.confidence < SURE_VIEW and not view.issues:
        message = f"the scale is uncertain (confidence {view.confidence:.2f})"
        issues.append(issue(issue_codes.SCALE_UNCERTAIN, message, confidence=view.confidence))
    if sharpness < SHARP_ENOUGH:
        message = f"blurred: sharpness {below(sharpness)} is below {SHARP_ENOUGH:g}"
        facts = {"sharpness": round(sharpness, 2), "limit": SHARP_ENOUGH}
        issues.append(issue(issue_codes.LOW_SHARPNESS, message, **facts))
    if not cells:
        issues.append(issue(issue_codes.NO_CELLS, "nothing found"))
    return issues
