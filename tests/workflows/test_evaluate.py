"""What an evaluation counts as shown to a user is what an analysis shows."""

import pytest

from bloodfilm.core.issue_codes import DETECTIONS_LIMITED
from bloodfilm.core.issues import codes
from bloodfilm.core.progress import NoProgress
from bloodfilm.core.results import AnalysisRun
from bloodfilm.formats import open_dataset
from bloodfilm.inference.bundle import default_bundle
from bloodfilm.workflows.analyze import RESULT, AnalysisJob, analyze
from bloodfilm.workflows.evaluate import EvaluationOptions, predict
from bloodfilm.workflows.render import RenderJob, render


@pytest.mark.slow
def test_what_counts_as_shown_is_what_an_analysis_shows(tmp_path):
    profiles = ("lld40x-like", "raabin-like", "pbc-like")
    render(RenderJob(out=tmp_path / "drawn", fields=1, profiles=profiles, small=True, seed=5))
    dataset = open_dataset(tmp_path / "drawn" / "dataset.json")
    paths = [field.path for field in dataset]
    analyze(AnalysisJob(paths=paths, out=tmp_path / "out", report=False, workers=1))
    run = AnalysisRun.read(tmp_path / "out" / RESULT)

    request = EvaluationOptions(dataset=dataset, floor=0.02, threads=1)
    predicted = predict(list(dataset), default_bundle(), request, NoProgress())
    assert not predicted.failures and not run.failures
    analysed = {result.image.sha256: result for result in predicted.analysed}
    limited = {DETECTIONS_LIMITED}  # of more low scores more are left out
    hidden = kinds = 0
    for shown in run:
        result = analysed[shown.image.sha256]
        counted = [cell for cell in result.cells if predicted.visible(cell)]
        hidden += len(result.cells) - len(counted)
        kinds = max(kinds, len({cell.object_type for cell in counted}))
        assert [c.to_json() for c in counted] == [c.to_json() for c in shown.cells]
        assert result.countable == shown.countable
        assert result.view.to_json() == shown.view.to_json()
        assert codes(result.issues) - limited == codes(shown.issues) - limited
    # Otherwise the comparison says nothing: low scores were there, and several types.
    assert hidden and kinds > 1
