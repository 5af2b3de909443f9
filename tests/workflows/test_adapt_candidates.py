"""Which of several judged ways to adapt takes the original's place."""

from dataclasses import replace

from bloodfilm.evaluation.marked_figures import MarkedFigures
from bloodfilm.workflows.adapt_candidates import LESS_GAIN, Candidate, choose

FIGURES = MarkedFigures(20, (10, 14), 4, 0, (0.5, 0.7), (1.0, 0.6), {})


def write(out, record):
    raise AssertionError("nothing is written here")


def test_what_marks_or_figures_speak_against_is_not_returned():
    assert choose([]) is None
    assert (
        choose([Candidate("correction", ("too few",)), Candidate("statistics", ("worse",))]) is None
    )


def test_of_several_the_one_that_names_marked_cells_best_is_returned():
    correction = Candidate("correction", (), marked=FIGURES, write=write)
    better = replace(FIGURES, right=(10, 16), accuracy=(0.5, 0.8))
    trained = Candidate("self-training", (), marked=better, write=write)
    assert choose([correction, trained]) is trained
    assert choose([correction, replace(trained, reasons=("classes merge",))]) is correction
    assert correction.to_json(returned=False)["reasons"] == [LESS_GAIN]
    surer = replace(FIGURES, log_loss=(1.0, 0.5))
    assert choose([correction, replace(trained, marked=surer)]).name == "self-training"
    assert choose([correction, replace(trained, marked=FIGURES)]) is correction  # networks stay
