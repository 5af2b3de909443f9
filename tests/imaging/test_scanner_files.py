"""Slides as scanners write them: MIRAX, Hamamatsu NDPI, Philips TIFF; OpenSlide reads them, too."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tifffile

from bloodfilm.core.errors import DataError
from bloodfilm.core.issues import codes
from bloodfilm.imaging.discovery import find_images
from bloodfilm.imaging.sources.open_slide import files_of, is_slide
from bloodfilm.imaging.sources.open_slide import open_slide as opened_slide
from fixtures.scanner_files import write_mirax, write_ndpi, write_philips

W, H = 1280, 1024


@pytest.fixture(scope="module")
def openslide():
    return pytest.importorskip("openslide")


@pytest.fixture(scope="module")
def pixels():
    """A smooth picture without anything white or black."""
    y, x = np.mgrid[:H, :W]
    return np.stack(
        [120 + 80 * np.sin(x / 60), 130 + 70 * np.cos(y / 45), 90 + x / W * 90], axis=2
    ).astype(np.uint8)


_opened = []


def open_slide(path):
    """Open a slide that is closed after the test."""
    _opened.append(opened_slide(path))
    return _opened[-1]


@pytest.fixture(autouse=True)
def _close():
    yield
    while _opened:
        _opened.pop().close()


def near(a, b, limit=2.0):
    """Whether two pictures are alike."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean()) < limit


def reduced(pixels, factor):
    return cv2.resize(pixels, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)


# ---- MIRAX -----------------------------------------------------------------------------------


def test_positions_in_a_mirax_slide_count_from_its_scanned_part(openslide, tmp_path, pixels):
    path = write_mirax(tmp_path / "a.mrxs", pixels, at=(2, 1))
    slide = open_slide(path)
    assert slide.kind == "mirax slide"
    assert slide.size == (W, H)
    assert [v.downsample for v in slide.levels] == [1, 2, 4]
    assert near(slide.read_region(300, 200, 400, 500), pixels[200:700, 300:700])
    assert near(slide.thumbnail(W // 4), reduced(pixels, 4))
    assert slide.pixel_size.um_per_px_x == slide.pixel_size.um_per_px_y == 0.25
    (bounds,) = slide.issues
    assert bounds.code == "slide-bounds"
    assert bounds.data == {"corner": [512, 256], "size": [W, H], "of": [2304, 1536]}


def test_what_a_mirax_slide_did_not_scan_is_empty_glass(openslide, tmp_path, pixels):
    """Its file says that unscanned areas are black."""
    path = write_mirax(tmp_path / "a.mrxs", pixels, missing=[(1, 1), (2, 1), (1, 2), (2, 2)])
    slide = open_slide(path)
    seen = slide.read_region(0, 0, W, H)
    assert (seen[256:768, 256:768] == 255).all()
    expected = pixels.copy()
    expected[256:768, 256:768] = 255
    assert near(seen, expected)
    assert near(slide.read_region(0, 0, W, H, downsample=4), reduced(expected, 4))
    assert slide.damage_in(0, 0, W, H) == []


def test_photographs_of_a_mirax_slide_overlap(openslide, tmp_path, pixels):
    path = write_mirax(tmp_path / "a.mrxs", pixels[: 16 + 4 * 240, : 16 + 5 * 240], overlap=16)
    slide = open_slide(path)
    assert slide.size == (16 + 5 * 240, 16 + 4 * 240)
    assert near(slide.read_region(0, 0, *slide.size), pixels[: slide.size[1], : slide.size[0]])


@pytest.mark.parametrize(
    ("um", "known", "found"),
    [
        (0.25, 0.25, set()),
        ("0", None, {"pixel-size-missing"}),
        ("40", None, {"pixel-size-missing", "metadata-ignored"}),
        (("0.25", "-1"), None, {"pixel-size-missing", "metadata-ignored"}),
        ("1e300", None, {"pixel-size-missing", "metadata-ignored"}),
    ],
)
def test_pixel_size_of_a_mirax_slide(openslide, tmp_path, pixels, um, known, found):
    slide = open_slide(write_mirax(tmp_path / "a.mrxs", pixels, um_per_px=um))
    assert (slide.pixel_size and slide.pixel_size.um_per_px_x) == known
    assert codes(slide.issues) == found


def broken_mirax(tmp_path, pixels, part):
    """Return a slide with a damaged image: the first of level 0, or the first of level 1."""
    path = write_mirax(tmp_path / "a.mrxs", pixels, side=512, levels=2)
    data = tmp_path / "a" / "Data0000.dat"
    held = bytearray(data.read_bytes())
    starts = [i for i in range(len(held)) if held[i : i + 3] == b"\xff\xd8\xff"]
    start = starts[part]
    held[start : start + 2] = b"no"
    data.write_bytes(held)
    return path


def test_a_damaged_image_is_glass_and_named_and_spoils_no_other(openslide, tmp_path, pixels):
    """An OpenSlide handle fails for good after an error, also for those who share it."""
    slide = open_slide(broken_mirax(tmp_path, pixels, 0))
    places = [(0, 0), (600, 0), (0, 600), (600, 600)] * 6
    with ThreadPoolExecutor(4) as executor:
        seen = list(executor.map(lambda p: slide.read_region(*p, 200, 200), places))
    for (x, y), found in zip(places, seen, strict=True):
        expected = np.full((200, 200, 3), 255) if (x, y) == (0, 0) else pixels[y:, x:][:200, :200]
        assert near(found, expected)
    (damage,) = slide.damage_in(0, 0, *slide.size)
    assert damage.area == (0, 0, 512, 512)
    assert damage.name == "block at 0, 0"


def test_a_damaged_image_of_a_reduced_level_is_made_of_full_resolution(openslide, tmp_path, pixels):
    slide = open_slide(broken_mirax(tmp_path, pixels, 4))  # two by two images of level 0 precede it
    assert near(slide.thumbnail(512), reduced(pixels[:1024, :1024], 2))
    assert slide.damage_in(0, 0, *slide.size) == []


@pytest.mark.parametrize("lost", ["folder", "Slidedat.ini", "Index.dat", "half of Index.dat"])
def test_a_mirax_slide_without_all_its_files_is_refused_in_one_line(
    openslide, tmp_path, pixels, lost
):
    path = write_mirax(tmp_path / "a.mrxs", pixels)
    if lost == "folder":
        shutil.rmtree(tmp_path / "a")
    elif lost.startswith("half"):
        index = tmp_path / "a" / "Index.dat"
        index.write_bytes(index.read_bytes()[: index.stat().st_size // 2])
    else:
        (tmp_path / "a" / lost).unlink()
    with pytest.raises(DataError, match=r"a\.mrxs: .*is every file of the slide there") as refused:
        open_slide(path)
    assert "\n" not in str(refused.value)


def test_a_folder_with_a_mirax_slide_holds_one_image(openslide, tmp_path, pixels):
    path = write_mirax(tmp_path / "a.mrxs", pixels)
    assert find_images([tmp_path]) == [path]
    one = open_slide(path).identity
    data = tmp_path / "a" / "Data0000.dat"
    data.write_bytes(data.read_bytes() + b"0")
    assert open_slide(path).identity != one


# ---- OpenSlide, other formats ----------------------------------------------------------------


def test_levels_whose_reduction_is_no_whole_number(openslide, tmp_path, pixels):
    from bloodfilm.imaging.sources.slide_openslide import OpenSlideSource

    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        common = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
        file.write(pixels[:1001, :1003], **common)
        small = cv2.resize(pixels[:1001, :1003], (286, 286), interpolation=cv2.INTER_AREA)
        file.write(small, subfiletype=1, **common)
    slide = OpenSlideSource(str(path))
    _opened.append(slide)
    assert slide.levels[1].downsample == pytest.approx(3.5, abs=0.01)
    whole = cv2.resize(pixels[:1001, :1003], (251, 250), interpolation=cv2.INTER_AREA)
    assert near(slide.read_region(0, 0, 1003, 1001, downsample=4), whole)
    part = cv2.resize(pixels[500:900, 600:1000], (100, 100), interpolation=cv2.INTER_AREA)
    assert near(slide.read_region(600, 500, 400, 400, downsample=4), part)


# ---- NDPI ------------------------------------------------------------------------------------


def test_an_ndpi_slide_is_read_as_openslide_reads_it(openslide, tmp_path, pixels):
    path = write_ndpi(tmp_path / "a.ndpi", pixels, macro=np.full((60, 200, 3), 99, np.uint8))
    theirs = openslide.OpenSlide(str(path))
    assert theirs.properties["openslide.vendor"] == "hamamatsu"
    slide = open_slide(path)
    assert slide.kind == "NDPI slide"
    assert slide.size == theirs.dimensions == (W, H)
    assert [v.downsample for v in slide.levels] == [1, 4]
    assert slide.pixel_size.um_per_px_x == pytest.approx(0.25)
    assert slide.pixel_size.um_per_px_y == pytest.approx(
        float(theirs.properties["openslide.mpp-y"])
    )
    seen = slide.read_region(300, 200, 400, 500)
    assert near(seen, np.asarray(theirs.read_region((300, 200), 0, (400, 500)))[..., :3], 0.6)
    assert near(seen, pixels[200:700, 300:700])
    assert near(slide.thumbnail(W // 4), reduced(pixels, 4))
    assert codes(slide.issues) == {"levels-left-out"}


def test_a_macro_image_of_the_slides_shape_is_no_level(tmp_path, pixels):
    path = write_ndpi(tmp_path / "a.ndpi", pixels, macro=np.full((256, 320, 3), 9, np.uint8))
    slide = open_slide(path)
    assert near(slide.thumbnail(320), reduced(pixels, 4))
    path = write_ndpi(
        tmp_path / "b.ndpi", pixels, steps=(1,), macro=np.full((512, 640, 3), 9, np.uint8)
    )
    assert near(open_slide(path).thumbnail(320), reduced(pixels, 4))


def test_of_focal_planes_the_one_in_focus_is_read(openslide, tmp_path):
    rng = np.random.default_rng(1)
    noise = cv2.GaussianBlur(rng.uniform(0, 255, (H, W, 3)), (0, 0), 2)
    sharp = np.clip(128 + (noise - 128) * 6, 0, 255).astype(np.uint8)
    path = write_ndpi(tmp_path / "a.ndpi", sharp, planes=(-2000, 0, 2000))
    slide = open_slide(path)
    assert [v.downsample for v in slide.levels] == [1, 4]
    assert near(slide.read_region(0, 0, W, H), sharp, 12)
    (left_out,) = slide.issues
    assert left_out.data["pages"] == 4
    theirs = np.asarray(openslide.OpenSlide(str(path)).read_region((0, 0), 0, (W, H)))[..., :3]
    assert near(slide.read_region(0, 0, W, H), theirs, 1)


def test_an_ndpi_slide_without_a_plane_in_focus_is_refused(tmp_path, pixels):
    path = write_ndpi(tmp_path / "a.ndpi", pixels, planes=(2000,))
    with pytest.raises(DataError, match=r"a\.ndpi: none of its pages .*\(Z offset 0\); export"):
        open_slide(path)


def test_pixel_size_of_an_ndpi_slide_may_be_missing(tmp_path, pixels):
    slide = open_slide(write_ndpi(tmp_path / "a.ndpi", pixels, um_per_px=None))
    assert slide.pixel_size is None
    assert codes(slide.issues) == {"pixel-size-missing"}


def test_a_truncated_ndpi_slide_is_refused(tmp_path, pixels):
    path = write_ndpi(tmp_path / "a.ndpi", pixels)
    data = path.read_bytes()
    for share in (0.3, 0.7, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DataError, match=r"a\.ndpi: ") as refused:
            open_slide(path)
        assert "\n" not in str(refused.value)


# ---- Philips ---------------------------------------------------------------------------------


def test_padded_levels_of_a_philips_slide_lie_where_they_should(openslide, tmp_path, pixels):
    """Sizes of levels say 7.5 and 6 where the reduction is 8: a tenth of the slide elsewhere."""
    path = write_philips(tmp_path / "a.tiff", pixels[:700, :900])
    assert openslide.OpenSlide(str(path)).properties["openslide.level-count"] == "4"
    assert is_slide(path)
    slide = open_slide(path)
    assert slide.kind == "Philips slide"
    assert [v.downsample for v in slide.levels] == [1, 2, 4, 8]
    assert slide.pixel_size.um_per_px_x == pytest.approx(0.25)
    assert codes(slide.issues) == set()
    for factor in (1, 2, 4, 8):
        seen = slide.read_region(0, 0, 896, 696, downsample=factor)
        assert near(seen, reduced(pixels[:696, :896], factor), 3), factor


def test_a_colour_profile_is_noted(tmp_path, pixels):
    path = tmp_path / "a.svs"
    tifffile.imwrite(
        path, pixels, tile=(128, 128), photometric="rgb", iccprofile=b"profile" * 20, metadata=None
    )
    assert "colour-profile" in codes(open_slide(path).issues)


# ---- slides of several files -----------------------------------------------------------------


def test_parts_of_a_slide_are_no_fields(tmp_path, pixels):
    """The tiles of a VMS slide are JPEG files, and a MIRAX folder may hold previews."""
    folder = tmp_path / "a"
    folder.mkdir()
    picture = cv2.imencode(".jpg", pixels[:64, :64])[1].tobytes()
    for name in ("s(1,0).jpg", "s_macro.jpg", "s_map2.jpg", "field.jpg"):
        (folder / name).write_bytes(picture)
    index = folder / "s.vms"
    index.write_text(
        "[Virtual Microscope Specimen]\nImageFile=s(1,0).jpg\nMapFile=s_map2.jpg\n"
        "MacroImage=s_macro.jpg\nNoJpegColumns=1\nOptimisationFile=gone.opt\n"
    )
    (folder / "m.mrxs").write_bytes(picture)
    (folder / "m" / "deep").mkdir(parents=True)
    (folder / "m" / "deep" / "preview.jpg").write_bytes(picture)
    found = [p.name for p in find_images([folder])]
    assert found == ["field.jpg", "m.mrxs", "s.vms"]
    assert [p.name for p in files_of(index)] == ["s.vms", "s(1,0).jpg", "s_macro.jpg", "s_map2.jpg"]
    assert [p.name for p in files_of(folder / "m.mrxs")] == ["m.mrxs", "preview.jpg"]


# ---- what OpenSlide may report of formats of which no file is written here ---------------------


class FakeOpenSlide:
    """Stands for OpenSlide's module and for the slide that it opens: grey, transparent outside."""

    OpenSlideError = RuntimeError
    size = 4000, 3000
    level_downsamples = 1.0, 4.0037, 15.87

    def __init__(self):
        self.asked = []
        self.properties = {}

    def OpenSlide(self, path):
        return self

    @property
    def level_dimensions(self):
        return [tuple(int(n / v) for n in self.size) for v in self.level_downsamples]

    def read_region(self, corner, level, size):
        self.asked.append((corner, level, size))
        found = np.zeros((size[1], size[0], 4), np.uint8)
        step = self.level_downsamples[level]
        inside = [max(0, int((n - c) / step)) for n, c in zip(self.size, corner, strict=True)]
        found[: inside[1], : inside[0]] = 180, 170, 160, 255
        return found

    def close(self):
        pass


@pytest.fixture
def fake(monkeypatch):
    module = FakeOpenSlide()
    monkeypatch.setitem(sys.modules, "openslide", module)
    return module


def test_a_leica_slide_is_read_within_its_bounds(fake, tmp_path):
    (tmp_path / "a.scn").write_bytes(b"scn")
    bounds = {"x": "1500", "y": "700", "width": "1200", "height": "900"}
    fake.properties = {f"openslide.bounds-{k}": v for k, v in bounds.items()}
    fake.properties |= {"openslide.vendor": "leica", "openslide.icc-size": "3144"}
    slide = open_slide(tmp_path / "a.scn")
    assert slide.size == (1200, 900)
    assert codes(slide.issues) == {"slide-bounds", "pixel-size-missing", "colour-profile"}
    assert (slide.read_region(0, 0, 1200, 900, downsample=4.0037) == (180, 170, 160)).all()
    assert (slide.thumbnail(80) == (180, 170, 160)).all()
    for corner, level, size in fake.asked:
        step = fake.level_downsamples[level]
        last = [c + n * step for c, n in zip(corner, size, strict=True)]
        assert 1500 <= corner[0] < last[0] <= 2700 + step
        assert 700 <= corner[1] < last[1] <= 1600 + step


@pytest.mark.parametrize(
    ("bounds", "size"),
    [
        ({}, (4000, 3000)),
        ({"x": "nan", "y": "", "width": "x", "height": "-5"}, (4000, 3000)),
        ({"x": "5000", "y": "0", "width": "100", "height": "100"}, (4000, 3000)),
        ({"x": "3500", "y": "-20", "width": "9000", "height": "1e9"}, (500, 3000)),
    ],
)
def test_bounds_that_cannot_be_are_not_used(fake, tmp_path, bounds, size):
    (tmp_path / "a.bif").write_bytes(b"bif")
    fake.properties = {f"openslide.bounds-{k}": v for k, v in bounds.items()}
    slide = open_slide(tmp_path / "a.bif")
    assert slide.size == size
    assert slide.read_region(0, 0, *size).shape == (size[1], size[0], 3)


def test_a_large_slide_without_reduced_levels_says_so(fake, tmp_path):
    (tmp_path / "a.scn").write_bytes(b"scn")
    fake.level_downsamples = (1.0,)
    fake.size = 12000, 9000
    slide = open_slide(tmp_path / "a.scn")
    assert "levels-missing" in codes(slide.issues)
    assert slide.thumbnail(60).shape == (45, 60, 3)
