"""The benchmark that leaves a site out: it never opens it, and counts as it says."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bloodfilm.core import DEFAULT_TAXONOMY
from bloodfilm.evaluation.class_figures import rank_auroc
from bloodfilm.training.config import load_config
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from leave_one_site_out import CONFIG, FIVE, balanced_interval, recalls, without

LEAVES = DEFAULT_VOCABULARY.leaves


class Task:
    leaves = LEAVES


def rows(*labels):
    return np.array([DEFAULT_TAXONOMY.leaf_mask(name, LEAVES) for name in labels])


@pytest.mark.parametrize("site", ["krd", "pbc", "bccd"])
def test_the_site_left_out_is_nowhere(site):
    config = load_config(CONFIG)
    changed = without(config, site, 6000, plain=False)
    for side in (changed.data.train, changed.data.validation):
        assert site not in {s.path.name for s in side} and side
    assert len(changed.data.train) == len(config.data.train) - 1
    assert changed.optim.epochs * changed.optim.samples == 6000
    assert changed.appearance == config.appearance
    assert not without(config, site, 6000, plain=True).appearance.normalise


def test_what_a_model_named_is_of_one_that_has_not_seen_the_site():
    config = load_config(CONFIG)
    named = config.data.train[0].model_copy(update={"path": Path("named/SITE/raabin")})
    data = config.data.model_copy(update={"train": (*config.data.train, named)})
    changed = without(config.model_copy(update={"data": data}), "krd", 6000, plain=False)
    assert changed.data.train[-1].path == Path("named/krd/raabin")


def test_the_interval_of_the_mean_recall_is_that_of_its_binomials():
    low, high = balanced_interval({"monocyte": (0.5, 100), "basophil": (1.0, 3)})
    half = 1.96 * 0.5 * (0.25 / 100) ** 0.5
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.01)


def test_area_under_roc_counts_ties_by_half():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(0, 6, 200).astype(float), rng.random(200) < 0.3
    assert rank_auroc(score[positive], score[~positive]) == pytest.approx(
        roc_auc_score(positive, score)
    )


def test_recall_sums_leaves_and_lets_other_classes_be_wrong():
    p = np.zeros((5, len(LEAVES)))
    for i, name in enumerate(("band neutrophil", "monocyte", "monocyte", "myeloblast", "basophil")):
        p[i, LEAVES.index(name)] = 1
    # Two leaves of one class outweigh a single likelier leaf of another.
    p[0, [LEAVES.index(n) for n in ("segmented neutrophil", "band neutrophil")]] = 0.3
    p[0, LEAVES.index("eosinophil")] = 0.4
    truth = rows("neutrophil", "monocyte", "lymphocyte", "monocyte", "white cell")
    found = recalls(Task, p, truth)
    assert found == {"neutrophil": (1.0, 1), "lymphocyte": (0.0, 1), "monocyte": (0.5, 2)}
    assert set(found) <= set(FIVE)
