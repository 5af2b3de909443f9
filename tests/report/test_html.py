import json
import re
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bloodfilm.report import write_report
from bloodfilm.report.html.formatting import issue_title
from bloodfilm.report.html.images import Embedder

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
    assert "scale assumed, sizes are guesses" in page.text
    assert "Pixels are not square: compressed to 56 % of the width" in page.text.replace(
        "\xa0", " "
    )
    assert "Shown with square pixels" in page.text
    assert "made-up" in page.text and "Apache-2.0" in page.text and "bloodfilm 9.9" in page.text


def test_it_loads_nothing(run, field, written):
    text, page = written(run([field()]))
    assert page.loads and all(
        value.startswith("data:image/webp;base64,") for _, value in page.loads
    )
    assert all(re.match(r"#|cells\.csv$|result\.json$", link) for link in page.links)
    assert not page.tags["link"] and not page.tags["iframe"] and not page.handlers
    outside = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(|fetch\(|XMLHttp|import\(", outside)
    assert "default-src 'none'" in text


def test_the_policy_allows_the_script_that_is_there(run, field, written):
    import base64
    import hashlib

    text, page = written(run([field()]))
    digest = base64.b64encode(hashlib.sha256(page.scripts["code"].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_every_link_leads_somewhere_and_ids_are_unique(run, field, written):
    _, page = written(run([field("a.png", 1), field("b.png", 2)]))
    assert max(page.ids.values()) == 1
    cells = {f"cell-{c[0]}-{c[1]}" for c in json.loads(page.scripts["data"])["cells"]}
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert cells <= set(inner)
    assert all(link in page.ids or link in cells for link in inner)


def test_every_cell_is_in_the_gallery(run, field, written):
    fields = [field(f"{i}.png", i) for i in range(4)]
    _, page = written(run(fields))
    data, crops = (json.loads(page.scripts[name]) for name in ("data", "crops"))
    nucleated = [
        (n, p, c)
        for n, f in enumerate(fields, 1)
        for p, c in enumerate(f.cells, 1)
        if c.object_type == "nucleated cell"
    ]
    assert [(c[0], c[1]) for c in data["cells"]] == [(n, p) for n, p, _ in nucleated]
    for shown, (number, place, cell) in zip(data["cells"], nucleated, strict=True):
        assert data["names"][shown[4]]["name"] == cell.label
        assert shown[2] == [round(v, 1) for v in cell.box]
        assert {data["issues"][i] for i in shown[8]} == {issue_title(i.code) for i in cell.issues}
        assert f"{number}-{place}" in crops
        assert f"box-{number}-{place}" in page.ids
        known = [a for a, v in zip(shown[7], data["attributes"], strict=True) if v["trained"]]
        for answer, attribute in zip(known, cell.attributes.values(), strict=True):
            assert bool(answer[2]) == (attribute.value is not None)


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
    assert "bad\\udcff.png" in page.text


def test_a_missing_image_is_said(run, field, written):
    there, gone, other = field("a.png", 1), field("b.png", 2), field("c.png", 3)
    Path(gone.path).unlink()
    object.__setattr__(other.image, "width", other.image.width + 1)
    _, page = written(run([there, gone, other]))
    assert page.text.count("No picture:") == 2
    assert "could not be read again" in page.text and "has changed since" in page.text
    assert len(json.loads(page.scripts["data"])["cells"]) == sum(
        c.object_type == "nucleated cell" for f in (there, gone, other) for c in f.cells
    )
    assert page.tags["img"] == 1


def test_budget_is_kept_and_admitted(run, field, written):
    fields = [field(f"{i}.png", i) for i in range(6)]
    full, _ = written(run(fields))
    pictures = sum(map(len, re.findall(r"base64,([A-Za-z0-9+/=]+)", full)))
    crops = sum(map(len, json.loads(Page(full).scripts["crops"]).values()))
    budget = (pictures + crops) // 2
    text, page = written(run(fields), budget=budget)
    spent = sum(map(len, re.findall(r"base64,([A-Za-z0-9+/=]+)", text)))
    spent += sum(map(len, json.loads(page.scripts["crops"]).values()))
    assert 0 < spent <= budget
    assert page.tags["img"] < 6
    assert f"{page.tags['img']} of 6 fields are pictured" in page.text
    assert all(f"row-{n}" in page.ids for n in range(1, 7))
    assert "without a picture" in page.text


def test_cells_in_doubt_are_pictured_first(run, field):
    from bloodfilm.report.html.gallery import wanted_cells
    from bloodfilm.report.html.sections import ReportMetadata

    facts = ReportMetadata(run([field(f"{i}.png", i) for i in range(6)]))
    doubtful = {
        (n, p)
        for n, brief in enumerate(facts.fields)
        for p, c in brief.cells
        if c.issues or facts.undecided(c)
    }
    assert doubtful
    wanted = wanted_cells(facts, len(doubtful))
    assert {(n, p) for n, places in enumerate(wanted) for p in places} == doubtful


def test_pictures_shrink_as_fields_grow():
    sides = [Embedder(n, 1, 22.4).field_side for n in (1, 100, 1000)]
    assert sides == sorted(sides, reverse=True) and len(set(sides)) == 3


def test_same_run_same_bytes(run, field, written):
    made = run([field("a.png", 1), field("b.png", 2)])
    assert written(made)[0] == written(made)[0]


def test_nothing_found_and_nothing_read(run, written):
    _, page = written(run([]))
    assert "No field gave a result" in page.text and "No white cell was found" in page.text


def test_everything_learnt_is_said_with_its_limits(run, field, written):
    _, page = written(run([field()], untrained_classes=(), untrained_attributes=()))
    assert "Whatever is in neither, it cannot name" in page.text


def test_fields_read_from_disk_each_time(run, field, written):
    class Lazy:
        def __init__(self, fields):
            self.fields = fields

        def __iter__(self):
            return iter(list(self.fields))

        def __len__(self):
            return len(self.fields)

    _, page = written(run(Lazy([field("a.png", 1)])))
    assert page.tags["img"] == 1
