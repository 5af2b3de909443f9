"""How well the diagnosis can be predicted from background and red cells alone.

If a small classifier that sees no white cell predicts the diagnosis, so can a large one, and a
figure on a split that shares slides proves nothing. Linear discriminant analysis with a shared,
shrunken covariance (Friedman, JASA 1989), leaving one patient out at a time.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.image_statistics import FieldStatistics, Survey
from bloodfilm.core.arrays import Floats
from bloodfilm.core.findings import Finding

SHRINK = 0.2
FOLDS = 5
NOTABLE = 0.2  # above chance


def confounded(survey: Survey) -> Iterator[Finding]:
    """Measure how much of the diagnosis stain and red cells give away, domain by domain."""
    domains: dict[str, list[int]] = {}
    for number, field in survey:
        row = survey.table.rows[number]
        if row.diagnosis and row.patient and field.measurement.is_measurable:
            domains.setdefault(row.domain.name, []).append(number)
    for name, numbers in sorted(domains.items()):
        rows = [survey.table.rows[n] for n in numbers]
        features = np.array([_features(survey.fields[n]) for n in numbers])
        finding = judge(
            features, [r.diagnosis or "" for r in rows], [r.patient or "" for r in rows], name
        )
        if finding is not None:
            yield finding


def _features(field: FieldStatistics) -> list[float]:
    m = field.measurement
    return [*np.log(np.maximum(field.white, 1)), *field.tone, np.log(m.diameter), m.spread]


def judge(features: Floats, diagnoses: list[str], patients: list[str], name: str) -> Finding | None:
    """Return what (n, k) features without white cells predict of n fields' diagnoses."""
    classes, inverse = np.unique(diagnoses, return_inverse=True)
    labels = inverse.astype(np.int64)
    if len(classes) < 2:
        return None
    of_class = {
        c: len({p for p, d in zip(patients, diagnoses, strict=True) if d == c})
        for c in classes.tolist()
    }
    chance = 1 / len(classes)
    mixed = balanced_accuracy(features, labels, np.arange(len(labels), dtype=np.int64) % FOLDS)
    data: dict[str, Any] = {
        "domain": name,
        "fields": len(labels),
        "patients": len(set(patients)),
        "chance": round(chance, 4),
        "accuracy_with_shared_slides": round(mixed, 4),
    }
    single = sorted(c for c, count in of_class.items() if count < 2)
    if single:
        message = (
            f"{name}: background and red cells alone give the diagnosis of {mixed:.0%} of the "
            f"fields (chance {chance:.0%}) where fields of one slide are on both sides. "
            f"{', '.join(single)} {'has' if len(single) == 1 else 'have'} one patient: diagnosis "
            "and slide cannot be separated"
        )
        return Finding(
            "confounded",
            "warning",
            message,
            data | {"diagnoses_with_one_patient": single},
            file=name,
            advice="add patients; leave a patient out, and claim nothing about diagnoses",
        )
    folds = np.unique(patients, return_inverse=True)[1].astype(np.int64)
    apart = balanced_accuracy(features, labels, folds)
    fields = f"{len(labels)} fields of {len(set(patients))} patients"
    message = (
        f"{name}: background and red cells alone give the diagnosis of {apart:.0%} of {fields} "
        f"never seen (chance {chance:.0%}), {mixed:.0%} where fields of one slide are on both sides"
    )
    notable = apart > chance + NOTABLE
    return Finding(
        "confounded",
        "warning" if notable else "info",
        message,
        data | {"accuracy_by_patient": round(apart, 4)},
        file=name,
        advice="balance stains across diagnoses, or normalise them; report by patient"
        if notable
        else "leave patients out",
        confidence=0.7,
    )


def balanced_accuracy(
    features: Floats, labels: NDArray[np.int64], folds: NDArray[np.int64]
) -> float:
    """Return the mean recall over classes, each fold predicted from the others."""
    predicted = np.full(len(labels), -1)
    for fold in np.unique(folds):
        out = folds == fold
        if len(np.unique(labels[~out])) > 1:
            predicted[out] = _lda(features[~out], labels[~out], features[out])
    recalls = [float((predicted[labels == c] == c).mean()) for c in np.unique(labels)]
    return float(np.mean(recalls))


def _lda(known: Floats, labels: NDArray[np.int64], unknown: Floats) -> NDArray[np.int64]:
    centre, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-6)
    a, b = (known - centre) / scale, (unknown - centre) / scale
    classes = np.unique(labels)
    means = np.stack([a[labels == c].mean(axis=0) for c in classes])
    residual = a - means[np.searchsorted(classes, labels)]
    covariance = residual.T @ residual / max(len(a) - len(classes), 1)
    width = len(covariance)
    covariance = (1 - SHRINK) * covariance + SHRINK * np.trace(covariance) / width * np.eye(width)
    covariance += 1e-6 * np.eye(width)
    weights = np.linalg.solve(covariance, means.T)
    scores = b @ weights - 0.5 * (means.T * weights).sum(axis=0)
    return np.asarray(classes[scores.argmax(axis=1)])
