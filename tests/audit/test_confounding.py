"""Stain and diagnosis: told when they cannot be separated, and when they can."""

import numpy as np

from bloodfilm.audit.confounding import balanced_accuracy, judge


def slides(patients, shift, seed=0):
    """Eight fields a patient; diagnoses alternate; `shift` moves the stain of one of them."""
    rng = np.random.default_rng(seed)
    features, diagnoses, names = [], [], []
    for p in range(patients):
        own = rng.normal(0, 1, 4) + (shift if p % 2 else 0)
        features.append(own + rng.normal(0, 0.1, (8, 4)))
        diagnoses += [("ALL", "AML")[p % 2]] * 8
        names += [str(p)] * 8
    return np.vstack(features), diagnoses, names


def test_one_patient_a_diagnosis_cannot_be_separated():
    finding = judge(*slides(2, 3.0), "H/40X/C2")
    assert finding.severity == "warning"
    assert "cannot be separated" in finding.message


def test_a_stain_that_follows_the_diagnosis_is_seen():
    finding = judge(*slides(16, 5.0), "H/40X/C2")
    assert finding.severity == "warning" and "never seen" in finding.message


def test_a_stain_that_does_not_is_no_warning():
    finding = judge(*slides(24, 0.0), "H/40X/C2")
    assert finding.severity == "info"


def test_one_diagnosis_alone_says_nothing():
    features, _, names = slides(4, 0.0)
    assert judge(features, ["ALL"] * len(names), names, "x") is None


def test_slides_on_both_sides_flatter():
    features, diagnoses, names = slides(12, 0.0)
    labels = np.unique(diagnoses, return_inverse=True)[1]
    mixed = balanced_accuracy(features, labels, np.arange(len(labels)) % 5)
    apart = balanced_accuracy(features, labels, np.unique(names, return_inverse=True)[1])
    assert mixed > apart
