"""What a film suggests: patterns of the differential, with reasons; never a diagnosis.

Every rule is a few conditions on shares of white cells, listed in `RULES`. A condition holds with
some probability, for a count is a sample and a classifier errs: shares are drawn as the count (and,
where the bundle has one, its measured confusion) leaves them open, and a pattern's support is the
part of the draws in which all of its conditions hold. A pattern is silent where the model cannot
name the cells that it needs.

Cells that were left open are no evidence that a class is absent. They are drawn as what their
probabilities say they may be; those of one film err together, so all of them weigh as few
independent cells would (`drawn_shares`). Where no probabilities are known, a share may be as high
as if all of them were of its classes, and as low as if none were.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bloodfilm.core.results import CaseResult, CellResult, ModelInfo
from bloodfilm.core.taxonomy import BLAST, SMUDGE_CELL, Taxonomy
from bloodfilm.evaluation.confusion_correction import ClassConfusion, confusion_of
from bloodfilm.evaluation.drawn_shares import DRAWS, DrawnShares
from bloodfilm.evaluation.open_cells import OpenCells, likely_leaves

LEAST_SUPPORT = 0.25
LEAST_CELLS = 20
"""White cells below which nothing is suggested."""
LOUD = 0.5
"""Support from which an urgent pattern stands at the top of a report."""

ABNORMAL_PROMYELOCYTE = ("abnormal promyelocyte",)
LYMPHOBLAST = ("lymphoblast",)
MYELOID_BLASTS = ("myeloblast", "monoblast", "promonocyte")
BLASTS = (*ABNORMAL_PROMYELOCYTE, *LYMPHOBLAST, *MYELOID_BLASTS, BLAST)
IMMATURE = ("immature granulocyte",)
BASOPHIL = ("basophil",)
LYMPHOCYTES = ("lymphocyte", "atypical lymphocyte")


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on the share of some classes among white cells.

    Attributes:
        what: the classes, in words.
        names: nodes of the taxonomy; cells of those below them count too.
        at_least: the least share; `None`: not asked.
        below: the share must stay below this; `None`: not asked.
        more_than: the share must be larger than that of these nodes.
        evidence: whether the cells are what the pattern rests on, and are shown.
    """

    what: str
    names: tuple[str, ...]
    at_least: float | None = None
    below: float | None = None
    more_than: tuple[str, ...] = ()
    evidence: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern.

    Attributes:
        code: for programs.
        title: for people.
        urgent: whether it must be acted on at once.
        conditions: all must hold.
        needs: of each group of nodes the model must be able to name one at least.
        note: what to know of it.
        general: whether a more specific pattern of the same cells takes precedence.
        unless: code of a pattern that says more; where that one likelier holds than not, this one
            is not listed.
    """

    code: str
    title: str
    conditions: tuple[Condition, ...]
    needs: tuple[tuple[str, ...], ...]
    urgent: bool = False
    note: str = ""
    general: bool = False
    unless: str = ""


RULES: tuple[Rule, ...] = (
    Rule(
        "apl",
        "abnormal promyelocytes, as in acute promyelocytic leukaemia (APL)",
        (Condition("abnormal promyelocytes", ABNORMAL_PROMYELOCYTE, at_least=0.10),),
        (ABNORMAL_PROMYELOCYTE,),
        urgent=True,
        note="APL is an emergency: bleeding may kill within hours; have the film seen at once",
    ),
    Rule(
        "acute-lymphoblastic",
        "lymphoblast-like blasts, as in acute lymphoblastic leukaemia",
        (
            Condition("blasts", BLASTS, at_least=0.20),
            Condition("lymphoblasts", LYMPHOBLAST, more_than=MYELOID_BLASTS),
            Condition("abnormal promyelocytes", ABNORMAL_PROMYELOCYTE, below=0.10, evidence=False),
        ),
        (LYMPHOBLAST, MYELOID_BLASTS),
        urgent=True,
    ),
    Rule(
        "acute-myeloid",
        "myeloid or monocytic blasts, as in acute myeloid leukaemia",
        (
            Condition("blasts", BLASTS, at_least=0.20),
            Condition("myeloid or monocytic blasts", MYELOID_BLASTS, more_than=LYMPHOBLAST),
            Condition("abnormal promyelocytes", ABNORMAL_PROMYELOCYTE, below=0.10, evidence=False),
        ),
        (LYMPHOBLAST, MYELOID_BLASTS),
        urgent=True,
    ),
    Rule(
        "blasts",
        "blasts, 20 % or more",
        (Condition("blasts", BLASTS, at_least=0.20),),
        (BLASTS,),
        urgent=True,
        general=True,
    ),
    Rule(
        "cml",
        "left shift with basophils, as in chronic myeloid leukaemia",
        (
            Condition("immature granulocytes", IMMATURE, at_least=0.10),
            Condition("basophils", BASOPHIL, at_least=0.005),
            Condition("blasts", BLASTS, below=0.20, evidence=False),
        ),
        (IMMATURE, BASOPHIL, BLASTS),
    ),
    Rule(
        "cll",
        "many mature or atypical lymphocytes, as in chronic lymphocytic leukaemia",
        (
            Condition("mature or atypical lymphocytes", LYMPHOCYTES, at_least=0.50),
            Condition("blasts", BLASTS, below=0.10, evidence=False),
        ),
        (LYMPHOCYTES, LYMPHOBLAST),
        note="smudge cells speak for it; a raised absolute count is needed, which no film shows",
    ),
    Rule(
        "some-blasts",
        "blasts, 2 % or more",
        (Condition("blasts", BLASTS, at_least=0.02),),
        (BLASTS,),
        general=True,
        unless="blasts",
    ),
)


@dataclass(frozen=True, slots=True)
class Reason:
    """One condition as the film has it.

    Attributes:
        what: the classes, in words.
        count, total: counted cells named as those classes, and all white cells.
        share, low, high: their share with its 95 % interval: corrected where `corrected`, with
            open cells where `likely`.
        corrected: whether the share is corrected for the classifier's errors.
        condition: what the rule asks, in words.
        probability: that the condition holds.
        likely: whether the share holds what open cells are likely to be.
    """

    what: str
    count: int
    total: int
    share: float
    low: float
    high: float
    corrected: bool
    condition: str
    probability: float
    likely: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that the film suggests.

    Attributes:
        code, title, urgent, note: of the rule.
        support: probability that all conditions hold, given count and classifier.
        reasons: one for each condition.
        labels: names of the cells that it rests on.
        general: whether it says less than others, of the same cells.
        classes: classes of which an open cell must likelier be than not to be one of them.
        smudge_cells: counted beside, for the lymphocyte pattern.
    """

    code: str
    title: str
    urgent: bool
    support: float
    reasons: tuple[Reason, ...]
    labels: tuple[str, ...]
    note: str = ""
    smudge_cells: int | None = None
    classes: tuple[str, ...] = ()
    general: bool = False

    def rests_on(self, cell: CellResult, taxonomy: Taxonomy) -> bool:
        """Whether a counted cell is one that the pattern rests on."""
        if cell.label in self.labels:
            return True
        likely = likely_leaves(cell, taxonomy)
        return sum(likely.get(name, 0.0) for name in self.classes) > 0.5


@dataclass(frozen=True, slots=True)
class SilentPattern:
    """A pattern that cannot be judged, and the classes that the model would have to name."""

    code: str
    title: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class FilmPatterns:
    """What a film suggests.

    Attributes:
        patterns: urgent ones first, then by support.
        silent: those that the model cannot judge.
        white: white cells that were counted.
        too_few: whether fewer than `LEAST_CELLS` were, so that nothing is suggested.
        corrected: whether the classifier's measured errors are in the support.
    """

    patterns: tuple[Pattern, ...]
    silent: tuple[SilentPattern, ...]
    white: int
    too_few: bool = False
    corrected: bool = False

    @property
    def loud(self) -> tuple[Pattern, ...]:
        """The patterns that stand at the top of a report.

        Urgent ones that likelier hold than not; a general one only where no other says more.
        """
        found = [p for p in self.patterns if p.urgent and p.support >= LOUD]
        return tuple([p for p in found if not p.general] or found)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "patterns": [_plain(p) for p in self.patterns],
            "silent": [asdict(p) for p in self.silent],
            "white": self.white,
            "too_few": self.too_few,
            "corrected": self.corrected,
        }


def _plain(pattern: Pattern) -> dict[str, Any]:
    data = asdict(pattern)
    for reason in data["reasons"]:
        for key in ("share", "low", "high", "probability"):
            reason[key] = round(reason[key], 4)
    return data | {"support": round(pattern.support, 4)}


def film_patterns(
    source: CaseResult | Iterable[CellResult], model: ModelInfo | None = None
) -> FilmPatterns:
    """Return the patterns that a film suggests: see `patterns_of_counts`.

    Args:
        source: a case, or the cells of one.
        model: which classes it can name, and its measured confusion; the case's own if left out.
    """
    if isinstance(source, CaseResult):
        model, cells = model or source.model, list(source.counted_cells())
    else:
        model, cells = model or ModelInfo({}), list(source)
    counts = Counter(c.label for c in cells if c.object_type == model.classified)
    smudges = sum(SMUDGE_CELL in (c.label, c.object_type) for c in cells)
    can_name = set(model.taxonomy.leaves) - set(model.untrained_classes)
    return patterns_of_counts(
        counts,
        model.taxonomy,
        can_name,
        confusion_of(model.metrics),
        smudge_cells=smudges,
        expected=OpenCells.of(cells, model).expected,
    )


def patterns_of_counts(
    counts: Mapping[str, int],
    taxonomy: Taxonomy,
    can_name: Iterable[str] | None = None,
    confusion: ClassConfusion | None = None,
    *,
    smudge_cells: int | None = None,
    expected: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
) -> FilmPatterns:
    """Return the patterns that counts of cells suggest.

    Args:
        counts: cells by name, leaves or inner nodes.
        taxonomy: that the names are nodes of.
        can_name: leaves that whoever counted can name; all, if left out.
        confusion: how often names are wrong; without it they are taken as right.
        smudge_cells: counted beside.
        expected: by name that leaves cells open, how many of these are expected to be of each
            class (`OpenCells.expected`).
        seed: of the draws.

    >>> from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
    >>> found = patterns_of_counts({"lymphoblast": 60, "lymphocyte": 40}, DEFAULT_TAXONOMY)
    >>> [p.code for p in found.patterns]
    ['acute-lymphoblastic', 'blasts']
    """
    white = {n: k for n, k in counts.items() if k and _is_white(n, taxonomy)}
    total = sum(white.values())
    able = set(taxonomy.leaves if can_name is None else can_name)
    shares = DrawnShares(white, taxonomy, confusion, expected or {}, seed)
    silent, found = [], []
    for rule in RULES:
        missing = _missing(rule, taxonomy, able)
        if missing:
            silent.append(SilentPattern(rule.code, rule.title, missing))
        elif total >= LEAST_CELLS:
            pattern = _judged(rule, shares, smudge_cells, taxonomy)
            if pattern.support >= LEAST_SUPPORT:
                found.append((rule, pattern))
    likely = {rule.code for rule, pattern in found if pattern.support >= LOUD}
    found = [item for item in found if item[0].unless not in likely]
    found.sort(key=lambda item: (item[0].general, not item[1].urgent, -item[1].support))
    patterns = tuple(p for _, p in found)
    return FilmPatterns(patterns, tuple(silent), total, total < LEAST_CELLS, shares.corrected)


def _is_white(name: str, taxonomy: Taxonomy) -> bool:
    top = taxonomy.find("white cell") or taxonomy.nodes[0].name
    return name in taxonomy and taxonomy.is_under(name, top)


def _missing(rule: Rule, taxonomy: Taxonomy, able: set[str]) -> tuple[str, ...]:
    """Return the classes of the groups of which the model can name none."""
    lacking: list[str] = []
    for group in rule.needs:
        leaves = {leaf for n in group if n in taxonomy for leaf in taxonomy.leaves_under(n)}
        if not leaves & able:
            lacking += [n for n in group if n != BLAST]
    return tuple(lacking)


def _judged(
    rule: Rule, shares: DrawnShares, smudge_cells: int | None, taxonomy: Taxonomy
) -> Pattern:
    holds = np.ones(DRAWS, bool)
    reasons = []
    for condition in rule.conditions:
        drawn = shares.drawn(condition.names)
        true = np.ones(DRAWS, bool)
        if condition.at_least is not None:
            true &= drawn >= condition.at_least
        if condition.below is not None:
            true &= shares.drawn(condition.names, most=True) < condition.below
        if condition.more_than:
            true &= drawn > shares.drawn(condition.more_than, most=True)
        holds &= true
        share, low, high = shares.share(condition.names)
        reasons.append(
            Reason(
                condition.what,
                shares.count(condition.names),
                shares.total,
                share,
                low,
                high,
                shares.corrected,
                _in_words(condition),
                float(true.mean()),
                shares.likely,
            )
        )
    evidence = [n for c in rule.conditions if c.evidence for n in c.names]
    return Pattern(
        rule.code,
        rule.title,
        rule.urgent,
        float(holds.mean()),
        tuple(reasons),
        tuple(sorted(n for n in shares.white if shares.is_one_of(n, evidence))),
        rule.note,
        smudge_cells if rule.code == "cll" else None,
        tuple(leaf for leaf in taxonomy.leaves if shares.is_one_of(leaf, evidence)),
        rule.general,
    )


def rule_table() -> str:
    """Return the rules as a table in Markdown, one row per rule."""
    lines = ["| pattern | all of | the model must name | urgent |", "|---|---|---|---|"]
    for rule in RULES:
        conditions = "; ".join(_in_words(c) for c in rule.conditions)
        needs = "; ".join(" or ".join(n for n in group if n != BLAST) for group in rule.needs)
        urgent = "yes" if rule.urgent else ""
        lines.append(f"| `{rule.code}`: {rule.title} | {conditions} | {needs} | {urgent} |")
    return "\n".join(lines)


def _in_words(condition: Condition) -> str:
    words = []
    if condition.at_least is not None:
        words.append(f"at least {100 * condition.at_least:g} %")
    if condition.below is not None:
        words.append(f"below {100 * condition.below:g} %")
    if condition.more_than:
        words.append(f"more than {', '.join(condition.more_than)}")
    return f"{condition.what} {' and '.join(words)}"
