import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote

import numpy as np
import pytest

from bloodfilm.core import issue_codes
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.progress import NoProgress
from bloodfilm.core.results import CaseCell, CaseResult, CellView, FieldPlacement
from bloodfilm.imaging.discovery import find_images
from bloodfilm.report import write_report
from bloodfilm.report.html import report
from bloodfilm.report.html.formatting import issue_title
from bloodfilm.report.html.report import PICTURES, contact_sheet
from bloodfilm.report.pictures import PictureStore, field_side
from fixtures.made_up_results import SHAPE

WHEN = datetime(2025, 5, 6, 7, 8, tzinfo=UTC)
VOID = {"meta", "img", "input", "br", "link", "hr"}
# SVG shapes are written with a closing slash.
LOADING = {"src", "srcset", "poster", "data", "action", "formaction", "background", "ping"}


class Page(HTMLParser):
    """Balance, ids, links and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.loads = [], Counter(), [], []
        self.tags, self.texts, self.scripts, self.handlers = Counter(), [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.note(tag, attrs)
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.note(tag, attrs)

    def note(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value] += 1
            elif name == "href":
                self.links.append(value)
            elif name in LOADING:
                self.loads.append((tag, value))
            elif name.startswith("on"):
                self.handlers.append((tag, name))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "script":
            self.scripts[self.open[-1][1].get("id", "code")] = data
        elif not (self.open and self.open[-1][0] == "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def read(path):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    return text, page


@pytest.fixture
def written(tmp_path):
    return lambda run, **more: read(write_report(run, tmp_path / "out", when=WHEN, **more))


def data_of(page):
    return json.loads(page.scripts["data"])


def nucleated(result):
    return [(p, c) for p, c in enumerate(result.cells, 1) if c.object_type == "nucleated cell"]


# ---- what is on the page ---------------------------------------------------------------------


def test_a_whole_report(run, field, failure, written):
    fields = [
        field("a.png", 1),
        field("b.png", 2, squeeze=0.56),
        field("c.png", 3, source="assumed"),
    ]
    made = run(fields, [failure("bad.tif", "the file ends early")])
    _, page = written(made)
    assert page.text.count("Research use only. Not for diagnosis.") >= 2
    assert "bad.tif" in page.text and "the file ends early" in page.text
    assert "not trained on a promonocyte or an abnormal promyelocyte" in page.text
    assert "not trained to judge cytoplasmic vacuoles" in page.text
    assert "Scale assumed, sizes are guesses." in page.text
    assert "1 of 3 fields have no known scale; their cells are not counted" in page.text
    assert "made-up" in page.text and "Apache-2.0" in page.text and "bloodfilm 9.9" in page.text


def test_issues_stand_as_sentences(run, field, written):
    """Of the run among the cautions, of fields in their table, their list and beside the map."""
    several = "file names tell of 2 patients (a, b); give a table"
    of_run = (
        issue(issue_codes.SEVERAL_PATIENTS, several),
        issue(issue_codes.NO_OCCLUSION_MAP, "films/a.png: no occlusion maps"),
    )
    blurred = (
        issue(issue_codes.NOT_A_FILM, "left out"),
        issue(issue_codes.SCALE_CONFLICT, "Sizes differ!"),
    )
    made = replace(run([replace(field("a.png", 1), issues=blurred)]), issues=of_run)
    _, page = written(made)
    assert f"F{several[1:]}." in page.text
    assert page.text.count("Left out. Sizes differ!") == 2
    assert "films/a.png: no occlusion maps." in page.text
    assert data_of(page)["fields"][0]["issues"] == ["Left out.", "Sizes differ!"]


def test_it_loads_nothing_from_elsewhere(run, field, written):
    for single in (False, True):
        text, page = written(run([field()]), single_file=single)
        start = "data:" if single else f"{PICTURES}/"
        assert all(value.startswith(start) for _, value in page.loads)
        assert all(re.match(r"#|cells\.csv$|result\.json$", link) for link in page.links)
        assert not page.tags["link"] and not page.tags["iframe"] and not page.handlers
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|fetch\(", text)
        assert "default-src 'none'" in text and "unsafe" not in text
        assert " style=" not in text


def test_the_policy_allows_the_script_and_the_style_that_are_there(run, field, written):
    text, page = written(run([field()]))
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    for kind, content in (("script", page.scripts["code"]), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in text


def test_every_link_leads_somewhere_and_ids_are_unique(run, field, written):
    made = run([field("a.png", 1), field("b.png", 2), field("c.png", 3, source="assumed")])
    _, page = written(made)
    assert max(page.ids.values()) == 1
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert inner
    for link in inner:
        place, _, query = link.partition("?")
        assert place in page.ids
        if query:
            assert place in ("cells", "fields")
            assert parse_qs(query, strict_parsing=True)


def test_every_cell_is_in_the_data(run, field, written):
    fields = [field(f"{i}.png", i) for i in range(4)]
    _, page = written(run(fields))
    data = data_of(page)
    every = [(n, p, c) for n, f in enumerate(fields, 1) for p, c in nucleated(f)]
    assert [(c[0], c[1]) for c in data["cells"]] == [(n, p) for n, p, _ in every]
    for shown, (_, _, cell) in zip(data["cells"], every, strict=True):
        assert shown[2] == cell.id
        assert data["names"][shown[5]]["name"] == cell.label
        assert shown[3] == [round(v, 1) for v in cell.box]
        titles = {data["issues"][i]["title"] for i in shown[9]}
        assert titles == {issue_title(i.code) for i in cell.issues}
        for answer, attribute in zip(shown[8], data["attributes"], strict=True):
            given = cell.attributes.get(attribute["name"])
            if given is None:
                assert answer == 0 and not attribute["trained"]
            else:
                index = -1 if given.value is None else attribute["values"].index(given.value)
                shares = [round(100 * p) for p in given.probabilities.values()]
                assert answer == [index, *shares]


def counted_link(text, name):
    """The number in a line of the differential, and the filters of its address."""
    table = text.partition('aria-labelledby="h-diff"')[2].partition("</table>")[0]
    row = re.search(rf"<tr[^>]*><th[^>]*>(?:<svg.*?</svg>)?{name}</th>(.*?)</tr>", table)[1]
    link, number = re.search(r'href="#cells\?([^"]*)">([\d,]+)<', row).groups()
    return int(number), {k: v[0] for k, v in parse_qs(link.replace("&amp;", "&")).items()}


def test_every_number_of_the_differential_opens_its_cells(run, field, written):
    """The filter in the address, applied to the data, gives as many cells as the number says."""
    made = run([field(f"{i}.png", i) for i in range(5)] + [field("x.png", 9, source="assumed")])
    text, page = written(made)
    data = data_of(page)
    shown = 0
    for name in made.model.taxonomy.names:
        if f">{name}</th>" not in text.partition('id="h-diff"')[2].partition("</table>")[0]:
            continue
        number, filters = counted_link(text, name)
        assert filters.pop("counted") == "1" and set(filters) == {"class"}
        place = [n["name"] for n in data["names"]].index(filters["class"])
        fitting = [c for c in data["cells"] if place in data["names"][c[5]]["path"] and c[14]]
        assert len(fitting) == number > 0
        shown += 1
    assert shown > 5


def test_undecided_cells_are_listed_by_their_likeliest_class(run, field, written):
    """Each number opens the cells; blasts say how many there are if undecided cells are likely."""
    likely = {"lymphoblast": 0.5, "lymphocyte": 0.3, "eosinophil": 0.2}
    first = field("a.png", 1)
    nuclei = [c for c in first.cells if c.object_type == "nucleated cell"]
    open_cells, blast = nuclei[:4], nuclei[4]
    kinds = {"lymphoblast": 0.7, "myeloblast": 0.3}
    changed = tuple(
        replace(c, label="white cell", probabilities=likely)
        if c in open_cells
        else replace(c, label="blast", probabilities=kinds)
        if c == blast
        else c
        for c in first.cells
    )
    made = run([replace(first, cells=changed), field("x.png", 9, source="assumed")])
    text, page = written(made)
    data = data_of(page)
    place = [n["name"] for n in data["names"]].index("lymphoblast")
    fitting = [c for c in data["cells"] if c[17] == place and c[14] == 1]
    undecided = [c for c in fitting if data["names"][c[5]]["undecided"]]
    assert (len(fitting), len(undecided)) == (5, 4)  # the blast is none of the undecided
    block = text.partition('id="h-likely"')[2].partition("</article>")[0]
    assert re.search(
        r'likely=lymphoblast&amp;only=undecided[^"]*">4</a></td><td class="n">50\s%', block
    )
    # Some kinds of blast cannot be named, so what is likely is a lower limit, as the count is.
    likely = made.model.untrained_classes and re.search(r"likely at least (\d+) of \d+", page.text)
    assert likely and int(likely[1]) >= 2


def test_the_contact_sheet_groups_undecided_cells_by_their_likeliest_class(
    run, field, cell, tmp_path
):
    from bloodfilm.report.html.content import collect

    one, other = {"lymphoblast": 0.6, "lymphocyte": 0.4}, {"monocyte": 0.6, "lymphocyte": 0.4}
    cells = [cell(label="white cell", probabilities=p) for p in [one] * report.SHEET_ROW + [other]]
    made = run([replace(field("a.png", 1), cells=tuple(cells))])
    store = PictureStore(tmp_path / "p", made.model.classified, made.model.crop_um, 1)
    groups = contact_sheet(collect(made, store, NoProgress()))
    assert [(g.label, g.likely, g.total) for g in groups] == [
        ("white cell", "lymphoblast", report.SHEET_ROW),
        ("white cell", None, 1),
    ]


def test_a_bar_ends_within_the_chart(run, field, written):
    first = field("a.png", 1)
    changed = tuple(replace(c, label="white cell") for c in first.cells)
    text, _ = written(run([replace(first, cells=changed)]))
    chart = text.partition('id="h-diff"')[2].partition("</table>")[0]
    assert re.search(r'<tr class="stopped"><th[^>]*>.*?white cell, not named more closely', chart)
    assert re.search(r"100\s%</th></tr></thead>", chart)


def test_cells_that_are_not_counted_are_named_and_can_be_opened(run, field, written):
    left = field("x.png", 9, source="assumed")
    text, page = written(run([field("a.png", 1), left]))
    count = len(nucleated(left))
    assert f"1 field with {count} cells: the scale is assumed" in page.text
    assert 'href="#cells?counted=0"' in text
    assert sum(not c[14] for c in data_of(page)["cells"]) == count


def test_every_reason_not_to_count_a_field_is_said(run, field, written):
    for code in sorted(issue_codes.UNCOUNTABLE):
        left = replace(field("a.png", 1), issues=(issue(code, "left out"),))
        text = written(run([left, field("b.png", 2)]))[1].text
        assert f"1 field with {len(nucleated(left))} cells:" in text


def test_what_cannot_be_named_has_no_share_and_no_interval(run, field, written):
    blasts = [n for n in run([]).model.taxonomy.leaves if n in run([]).model.taxonomy.blasts]
    made = run([field("a.png", 1)], untrained_classes=tuple(blasts))
    known = tuple(replace(c, label="lymphocyte") for c in made.fields[0].cells if c.probabilities)
    made = replace(made, fields=(replace(made.fields[0], cells=known),))
    text, page = written(made)
    assert "this model cannot name any kind of blast" in page.text
    assert 'class="scale"' not in text
    table = text[text.index('<table class="diff">') : text.index("</table>")]
    assert not any(f">{name}</th>" in table for name in blasts)


BLAST_VERDICTS = [
    # blasts, other cells, undecided ones, kinds that cannot be named, what is said
    (90, 10, 0, (), "the interval lies above 20 %"),
    (25, 75, 0, (), "the interval includes 20 %"),
    (1, 199, 0, (), "the interval lies below 20 %"),
    (1, 159, 40, (), "below 20 % unless undecided cells are blasts"),
    (90, 10, 0, ("monoblast",), "the interval lies above 20 %"),
    (1, 199, 0, ("monoblast",), None),
]


@pytest.mark.parametrize(("blasts", "others", "undecided", "untrained", "verdict"), BLAST_VERDICTS)
def test_blasts_are_held_against_a_fifth(
    run, field, cell, written, blasts, others, undecided, untrained, verdict
):
    """Of kinds that cannot be named the share is a lower limit: nothing excludes 20 %."""
    labels = ["myeloblast"] * blasts + ["lymphocyte"] * others + ["white cell"] * undecided
    cells = [cell(name, id=f"{n:04}") for n, name in enumerate(labels)]
    text, page = written(run([replace(field(), cells=tuple(cells))], untrained_classes=untrained))
    if verdict is None:
        assert "20 %" not in page.text.partition("Differential")[0]
        assert 'class="scale"' not in text
    else:
        assert verdict in page.text


def test_a_film_unlike_the_training_data_is_said_first(run, field, cell, written):
    strange = [cell(id=f"{n}", issues=(issue(issue_codes.UNFAMILIAR, "unlike"),)) for n in range(5)]
    usual = [cell(id=f"u{n}") for n in range(20)]
    alarm = "This film is far from what the model was trained on"
    assert alarm in written(run([replace(field(), cells=(*strange, *usual))]))[1].text
    assert alarm not in written(run([replace(field(), cells=(strange[0], *usual))]))[1].text


def test_outlines_lie_on_the_picture_of_their_cell(run, field, cell, written):
    shape = replace(
        SHAPE,
        outline=((100.0, 100.0), (140.0, 100.0), (140.0, 140.0), (100.0, 140.0)),
        nucleus=(((110.0, 110.0), (130.0, 110.0), (120.0, 130.0)),),
        nucleus_circularity=0.8,
    )
    cells = (cell(box=(100.0, 100.0, 40.0, 40.0), shape=shape, id="a"), cell(id="b"))
    one = replace(field(), cells=cells)
    data = data_of(written(run([one]))[1])
    rows = {row[2]: row for row in data["cells"]}
    assert rows["b"][16] == []
    drawn, nucleus = rows["a"][16]
    # The middle of the box is the middle of the picture, and the view's scale that of the window.
    xs, ys = drawn[::2], drawn[1::2]
    assert min(xs) + max(xs) == 160 and min(ys) + max(ys) == 160 and len(nucleus) == 6
    wide = 40 * one.view.um_per_px_x * data["side"] / data["window"]
    assert max(xs) - min(xs) == pytest.approx(wide, abs=1)


def test_the_oddest_cell_is_unlike_its_class(run, field, cell, written):
    cells = [cell(id=f"{n}", diameter_um=12.0 + n % 2 / 10) for n in range(9)]
    cells.append(cell(id="big", diameter_um=19.0))
    data = data_of(written(run([replace(field(), cells=tuple(cells))]))[1])
    assert max(data["cells"], key=lambda c: c[13])[2] == "big"


# ---- patterns --------------------------------------------------------------------------------


def test_an_urgent_pattern_stands_first_with_its_cells(run, field, cell, written):
    labels = ["abnormal promyelocyte"] * 40 + ["lymphocyte"] * 60
    cells = [cell(name, id=f"{n:04}") for n, name in enumerate(labels)]
    made = run([replace(field(), cells=tuple(cells))], untrained_classes=())
    text, page = written(made)
    assert 0 < text.index('class="pattern urgent"') < text.index('class="tiles"')
    assert "(APL)" in page.text and "40 of 100" in page.text
    assert "not a diagnosis" in page.text
    data = data_of(page)
    assert 'href="#cells?flag=apl"' in text
    behind = {data["cells"][at][2] for at in data["flags"]["apl"]}
    assert behind == {c.id for c in cells[:40]}


def test_a_pattern_that_the_model_cannot_judge_is_silent(run, field, cell, written):
    cells = [cell("lymphocyte", id=f"{n:04}") for n in range(100)]
    made = run([replace(field(), cells=tuple(cells))], untrained_classes=("abnormal promyelocyte",))
    text, page = written(made)
    assert 'class="pattern urgent"' not in text
    assert re.search(r"Cannot be judged by this model: [^.]*\(APL\)", page.text)


def test_corrected_shares_stand_beside_where_errors_were_measured(run, field, cell, written):
    from bloodfilm.evaluation.film_differential import CorrectedShare, film_differential
    from bloodfilm.report.html import content

    cells = [cell("lymphocyte", id=f"{n:04}") for n in range(100)]
    made = run([replace(field(), cells=tuple(cells))])
    assert "Corrected" not in written(made)[1].text

    def measured(found, model):
        share = CorrectedShare(0.8765, 0.81, 0.93)
        plain = film_differential(found, model)
        return replace(plain, corrected={"lymphocyte": share}, correction="measured")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "film_differential", measured)
        text = written(made)[1].text.replace("\xa0", " ")
    assert "Corrected" in text and "88 % (81–93 %)" in text


# ---- cases -----------------------------------------------------------------------------------


def case_of(name, fields, numbers, cells, **more):
    placements = tuple(FieldPlacement(n, **more.pop(f"field_{n}", {})) for n in numbers)
    return CaseResult(name, tuple(fields[n] for n in numbers), placements, tuple(cells), **more)


def test_a_cell_that_two_fields_show_is_counted_and_shown_once(run, field, written):
    from bloodfilm.core.issue_codes import CUT_BY_EDGE, issue

    fields = (field("a.png", 1), field("b.png", 2))
    one, two = ([c.id for _, c in nucleated(f)] for f in fields)
    both = CaseCell((CellView(1, two[0]), CellView(0, one[0])))
    cut = CaseCell((CellView(0, one[1]),), False, (issue(CUT_BY_EDGE, "cut"),))
    rest = [CaseCell((CellView(0, i),)) for i in one[2:]] + [
        CaseCell((CellView(1, i),)) for i in two[1:]
    ]
    case = case_of("film 7", fields, (0, 1), [both, cut, *rest])
    _, page = written(replace(run(fields), cases=(case,)))
    assert "Blood-film report film 7" in page.text
    data = data_of(page)
    status = {c[2]: c[14] for c in data["cells"]}
    assert status[two[0]] == 1 and status[one[0]] == 3 and status[one[1]] == 0
    shown = next(c for c in data["cells"] if c[2] == one[1])
    assert CUT_BY_EDGE in {data["issues"][i]["code"] for i in shown[9]}
    assert sum(value == 1 for value in status.values()) == 1 + len(rest)
    assert "1 further view of cells that are counted once" in page.text
    assert "1 cell not counted, which the edge cuts" in page.text


def test_fields_that_are_set_aside_are_named_with_the_reason(run, field, written):
    from bloodfilm.core.issue_codes import LOW_SHARPNESS, issue

    fields = (field("a.png", 1), field("b.png", 2))
    cells = [CaseCell((CellView(0, c.id),)) for _, c in nucleated(fields[0])]
    aside = {"counted": False, "issues": (issue(LOW_SHARPNESS, "blurred, set aside"),)}
    case = case_of("film", fields, (0, 1), cells, field_1=aside)
    _, page = written(replace(run(fields), cases=(case,)))
    assert "1 field with" in page.text and "the field is blurred" in page.text
    assert [f["counted"] for f in data_of(page)["fields"]] == [1, 0]


def test_a_file_of_a_case_that_failed_is_said_once(run, field, failure, written):
    from bloodfilm.core.issue_codes import FAILED_FIELDS, issue

    fields = (field("p/a.png", 1),)
    cells = [CaseCell((CellView(0, c.id),)) for _, c in nucleated(fields[0])]
    case = case_of("p", fields, (0,), cells, failures=("p/x.png",))
    said = issue(FAILED_FIELDS, "1 file could not be analysed", paths=["p/x.png"])
    both = replace(case, issues=(said,))
    _, page = written(replace(run(fields, [failure("p/x.png", "cut short")]), cases=(both,)))
    assert "1 file gave no result." in page.text and "could not be analysed" not in page.text
    _, page = written(replace(run(fields), cases=(replace(both, failures=()),)))
    assert "1 file could not be analysed" in page.text  # a file that is not there has no result


def test_several_cases_have_an_index_and_a_page_each(run, field, failure, tmp_path):
    fields = (field("p1/a.png", 1), field("p2/b.png", 2), field("p2/c.png", 3))
    cells = [
        [CaseCell((CellView(n, c.id),)) for _, c in nucleated(f)] for n, f in enumerate(fields)
    ]
    cases = (
        case_of('p<1>"', fields, (0,), cells[0], failures=("p1/x.png",)),
        case_of("p2", fields, (1, 2), cells[1] + cells[2]),
    )
    made = replace(run(fields, [failure("p1/x.png", "cut short")]), cases=cases)
    _, page = read(write_report(made, tmp_path / "alone", when=WHEN))
    assert "cases.csv, in the folder of the results," in page.text
    assert not any(link.endswith(".csv") for link in page.links)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cells.csv").touch()  # beside the tables of the analysis
    _, page = read(write_report(made, tmp_path / "out", when=WHEN))
    assert 'p<1>"' in page.text and not page.tags["script"]
    assert "cases.csv" in page.links
    links = [unquote(link) for link in page.links if link.endswith(".html")]
    assert links == ["cases/p_1.html", "cases/p2.html"]
    counts = []
    for link in links:
        _, inner = read(tmp_path / "out" / link)
        data = data_of(inner)
        counts.append(len(data["cells"]))
        assert "../report.html" in inner.links and "../cells.csv" in inner.links
        for shown in data["fields"]:
            assert (tmp_path / "out" / "cases" / data["pictures"] / shown["picture"]).is_dir()
        assert ("cut short" in inner.text) == (link == links[0])
    assert counts == [len(cells[0]), len(cells[1]) + len(cells[2])]
    assert len(list((tmp_path / "out" / PICTURES).iterdir())) == 3


def test_the_list_of_cases_says_what_stands_above_all_else(run, field, cell, tmp_path):
    """An emergency among undecided cells is in the list; what says less than it is not."""
    likely = {"abnormal promyelocyte": 0.6, "lymphocyte": 0.4}
    films = []
    for n in range(2):
        made = (cell(id=f"{n}{k}", label="white cell", probabilities=likely) for k in range(30))
        films.append(replace(field(f"p{n}/a.png", n), cells=tuple(made)))
    cases = tuple(
        case_of(f"p{n}", films, (n,), [CaseCell((CellView(n, c.id),)) for c in film.cells])
        for n, film in enumerate(films)
    )
    able = ("promonocyte",)
    report_of = replace(run(films, untrained_classes=able), cases=cases)
    _, page = read(write_report(report_of, tmp_path / "out", when=WHEN))
    assert page.text.count("Abnormal promyelocytes, as in acute promyelocytic leukaemia") == 2
    assert "Blasts, 20" not in page.text
    assert page.text.count("30 of 30 cells are left undecided.") == 2
    assert re.search(r"0 likely ≥ 60", page.text)


# ---- names from outside ----------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)<／script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "{{ 7*7 }} & 'quotes'.png",
    "ünï cödé 白血球 .png",
    "\u202egnp.exe.png",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(run, field, failure, written, name):
    text, page = written(run([field(name)], [failure(f"</script>{name}", f"</script>{name}")]))
    plain, _ = written(run([field("plain.png")], [failure("plain", "plain")]))
    assert page.tags == Page(plain).tags
    assert name.replace("\u202e", "\\u202e") in page.text
    assert "\u202e" not in text


def test_a_name_that_is_no_unicode(run, field, written):
    broken = field()
    object.__setattr__(broken.image, "path", "bad\udcff.png")
    _, page = written(run([broken]))
    assert "bad\\xff.png" in page.text


# ---- pictures --------------------------------------------------------------------------------


def test_pictures_lie_beside_the_page_and_are_no_fields(run, field, written, tmp_path):
    fields = [field("a.png", 1), field("b.png", 2)]
    _, page = written(run(fields))
    data, folder = data_of(page), tmp_path / "out" / PICTURES
    for number, shown in enumerate(data["fields"], 1):
        names = {p.name for p in (folder / shown["picture"]).iterdir()}
        assert names == {"field.jpg"} | {f"{c[1]}.jpg" for c in data["cells"] if c[0] == number}
    assert json.loads(page.scripts["pictures"]) == {}
    assert all((tmp_path / "out" / value).is_file() for _, value in page.loads)
    write_report(run(fields), tmp_path / "images")
    assert [p.name for p in find_images([tmp_path / "images"])] == ["a.png", "b.png"]


def test_a_single_file_holds_its_pictures(run, field, written, tmp_path):
    _, page = written(run([field("a.png", 1)]), single_file=True)
    data, pictures = data_of(page), json.loads(page.scripts["pictures"])
    folder = data["fields"][0]["picture"]
    assert not data["pictures"]
    assert set(pictures) == {f"{folder}/field.jpg"} | {
        f"{folder}/{c[1]}.jpg" for c in data["cells"]
    }
    assert all(base64.b64decode(text).startswith(b"\xff\xd8") for text in pictures.values())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["report.html"]


def test_what_does_not_fit_into_a_single_file_is_said(run, field, written, monkeypatch):
    fields = [field(f"{i}.png", i) for i in range(4)]
    every = json.loads(written(run(fields), single_file=True)[1].scripts["pictures"])
    room = sum(map(len, every.values())) // 2
    monkeypatch.setattr(report, "SINGLE_FILE_BYTES", room)
    _, page = written(run(fields), single_file=True)
    kept = json.loads(page.scripts["pictures"])
    assert 0 < sum(map(len, kept.values())) <= room
    assert f"{len(every) - len(kept)} pictures did not fit" in page.text


def test_missing_images_are_reported_to_who_asked(run, field, tmp_path):
    said = []

    class Listener(NoProgress):
        def report(self, found):
            said.append(found)

    gone, lost = field("gone.png", 1), field("lost.png", 2)
    for result in (gone, lost):
        Path(result.path).unlink()
    write_report(run([gone, lost]), tmp_path / "out", progress=Listener())
    (found,) = said
    assert found.code == "no-picture" and found.data["fields"] == 2
    assert "report.html: shows no picture of 2 of 2 fields; the first: " in found.message
    assert "\n" not in found.message


def test_a_missing_image_is_said(run, field, written):
    there, gone, other = field("a.png", 1), field("b.png", 2), field("c.png", 3)
    Path(gone.path).unlink()
    Path(other.path).write_bytes(Path(there.path).read_bytes())
    _, page = written(run([there, gone, other]))
    assert "could not be read again" in page.text and "has changed since" in page.text
    data = data_of(page)
    assert [bool(f["missing"]) for f in data["fields"]] == [False, True, True]
    assert len(data["cells"]) == sum(len(nucleated(f)) for f in (there, gone, other))
    assert "2 fields could not be pictured" in page.text


def test_pictures_of_an_analysis_are_used_and_others_removed(run, field, tmp_path):
    """The page does not open an image whose pictures are there, and keeps no stale ones."""
    one, two = field("a.png", 1), field("b.png", 2)
    made = run([one, two])
    write_report(made, tmp_path / "out", when=WHEN)
    Path(one.path).unlink()
    _, page = read(write_report(replace(made, fields=(one,)), tmp_path / "out", when=WHEN))
    assert not data_of(page)["fields"][0]["missing"]
    assert len(list((tmp_path / "out" / PICTURES).iterdir())) == 1


def test_a_picture_belongs_to_its_result(run, field, tmp_path):
    """Other boxes or another view of the same image have other pictures."""
    model = run([]).model
    store = PictureStore(tmp_path, model.classified, model.crop_um, 1)
    one = field("a.png", 1)
    moved = replace(one, cells=tuple(replace(c, box=(1, 2, 3, 4)) for c in one.cells))
    wider = replace(one, view=replace(one.view, um_per_px_x=0.3))
    names = {store.describe(result).folder for result in (one, moved, wider)}
    assert len(names) == 3


def test_pictures_shrink_as_fields_grow():
    sides = [field_side(n) for n in (1, 200, 1000)]
    assert sides == sorted(sides, reverse=True) and len(set(sides)) == 3


# ---- print, size, edges ----------------------------------------------------------------------


def test_the_contact_sheet_has_a_share_of_every_class(run, field, tmp_path):
    from bloodfilm.core.progress import NoProgress
    from bloodfilm.report.html.content import collect

    made = run([field(f"{i}.png", i) for i in range(8)])
    model = made.model
    store = PictureStore(tmp_path / "p", model.classified, model.crop_um, 8)
    content = collect(made, store, NoProgress())
    labels = Counter(c.label for c in content.cells)
    whole = contact_sheet(content)
    assert sum((Counter({g.label: len(g.cells)}) for g in whole), Counter()) == labels
    assert all({c.likely for c in g.cells} == {g.likely} for g in whole if g.likely)
    part = contact_sheet(content, most=6)
    assert [(g.label, g.likely, g.total) for g in part] == [
        (g.label, g.likely, len(g.cells)) for g in whole
    ]
    assert all(1 <= len(g.cells) <= g.total for g in part)
    assert sum(len(g.cells) for g in part) <= 6 + len(part)


@pytest.mark.parametrize(
    ("count", "limit"),
    [(2_500, 1_000_000), pytest.param(10_000, 3_000_000, marks=pytest.mark.slow)],
)
def test_thousands_of_cells_are_no_elements_of_the_page(run, field, cell, written, count, limit):
    """The wall is filled by the script; the page itself holds the sheet, and the data as text."""
    from bloodfilm.core.results import with_ids

    base = field()
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 200, (count, 2)).tolist()
    cells = with_ids([cell(box=(x, y, 48.0, 48.0)) for x, y in boxes], base.image.sha256)
    text, page = written(run([replace(base, cells=tuple(cells))]))
    assert len(data_of(page)["cells"]) == count
    assert page.tags["img"] <= report.MOST_ON_SHEET
    assert f"{report.MOST_ON_SHEET} of {count:,}" in page.text
    assert len(text) < limit


@pytest.mark.parametrize("count", [100, pytest.param(1_000, marks=pytest.mark.slow)])
def test_a_case_of_many_fields_stays_light(run, field, cell, written, count):
    """Ten cells on each field: a field costs a few elements of the page, a cell none."""
    from bloodfilm.core.results import with_ids

    base = field()
    fields = []
    for number in range(count):
        image = replace(base.image, path=f"f/{number}.png", sha256=f"{number:064x}")
        cells = [cell(box=(20.0 * k, 10.0, 18.0, 18.0)) for k in range(10)]
        shown = with_ids(cells, image.sha256)
        fields.append(replace(base, image=image, cells=shown))
    text, page = written(run(fields))
    assert len(data_of(page)["cells"]) == 10 * count
    assert page.tags.total() < 1_500 + 12 * count
    assert len(text) < 300_000 + 2_000 * count


def test_same_run_same_bytes(run, field, written):
    made = run([field("a.png", 1), field("b.png", 2)])
    assert written(made)[0] == written(made)[0]


def test_nothing_found_and_nothing_read(run, written):
    _, page = written(run([]))
    assert "No field gave a result" in page.text and "No white cell was counted" in page.text


def test_everything_learnt_is_said_with_its_limits(run, field, written):
    _, page = written(run([field()], untrained_classes=(), untrained_attributes=()))
    assert "Whatever is in neither, it cannot name" in page.text


def test_fields_are_read_once(run, field, written):
    class Lazy:
        def __init__(self, fields):
            self.fields, self.times = fields, 0

        def __iter__(self):
            self.times += 1
            return iter(list(self.fields))

        def __len__(self):
            return len(self.fields)

    lazy = Lazy([field("a.png", 1)])
    written(run(lazy))
    assert lazy.times == 1


def test_the_rule_by_which_cells_are_named_is_said_as_it_is(run, field, written):
    made = run([field()])
    by_probability, _ = written(made)
    assert "reaches 0.60" in by_probability and "hold the true class" not in by_probability
    sets = replace(made, model=replace(made.model, class_coverage=0.95))
    by_sets, page = written(sets)
    assert "hold the true class of 95 % of the cells" in page.text and "0.60" not in by_sets
