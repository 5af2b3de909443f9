"""Drawn pictures that are no blood films, by kind.

A kind is a function of a random generator that returns RGB (HEIGHT, WIDTH, 3). `FIRST` are the
kinds by which the colour and novelty of red cells came to count. `FURTHER` were drawn all at once
when the evidence of red cells was chosen, and chance put them in two halves: the scores of one were
in view, those of the other, `JUDGE`, were computed when the evidence was fixed.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Canvas = NDArray[np.float64]
Rng = np.random.Generator
Kind = Callable[[Rng], Image]
WIDTH, HEIGHT = 720, 540


def canvas(colour: tuple[float, float, float]) -> Canvas:
    return np.full((HEIGHT, WIDTH, 3), colour, dtype=np.float64)


def finished(values: Canvas, rng: Rng) -> Image:
    """Blur a little, add sensor noise."""
    soft = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.5, 1.2))
    noise = rng.normal(0, rng.uniform(0.5, 4), soft.shape)
    return np.clip(soft + noise, 0, 255).astype(np.uint8)


def colour(rng: Rng, low: float = 0, high: float = 255) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in rng.uniform(low, high, 3))
    return red, green, blue


def anywhere(rng: Rng) -> tuple[float, float]:
    return float(rng.uniform(0, WIDTH)), float(rng.uniform(0, HEIGHT))


def apart(rng: Rng, number: int, least: float) -> list[tuple[float, float]]:
    """Return up to so many places at least so many px from each other."""
    places: list[tuple[float, float]] = []
    for _ in range(12 * number):
        x, y = anywhere(rng)
        if all(np.hypot(x - a, y - b) >= least for a, b in places):
            places.append((x, y))
        if len(places) == number:
            break
    return places


def tint(rng: Rng, base: object, spread: float) -> tuple[float, float, float]:
    """Return a colour near a given one."""
    red, green, blue = np.clip(np.asarray(base, dtype=float) + rng.normal(0, spread, 3), 0, 255)
    return float(red), float(green), float(blue)


def shaded(base: object, by: float) -> tuple[float, float, float]:
    red, green, blue = np.clip(np.asarray(base, dtype=float) * by, 0, 255)
    return float(red), float(green), float(blue)


def disc(
    image: Canvas, at: tuple[float, float], size: object, ink: object, turn: float = 0
) -> None:
    """Draw an ellipse of axes (w, h) px, or a circle of a diameter."""
    width, height = (float(v) for v in np.broadcast_to(np.asarray(size, dtype=float), 2))
    cv2.ellipse(image, (at, (width, height), turn), ink, -1, cv2.LINE_AA)


def ring(image: Canvas, at: tuple[float, float], size: object, ink: object, line: int) -> None:
    width, height = (float(v) for v in np.broadcast_to(np.asarray(size, dtype=float), 2))
    cv2.ellipse(image, (at, (width, height), 0), ink, line, cv2.LINE_AA)


def blend(below: Canvas, layer: Canvas, cover: float) -> Canvas:
    """Lay one picture half-transparently on another: `cover` is how much of it is hidden."""
    return np.asarray((1 - cover) * below + cover * layer)


def ellipse(image: Canvas, rng: Rng, size: tuple[float, float], ink: object) -> None:
    """Draw an ellipse anywhere, of axes (w, h) px."""
    cv2.ellipse(image, (anywhere(rng), size, rng.uniform(0, 180)), ink, -1, cv2.LINE_AA)


def clouds(rng: Rng, beta: float, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Canvas:
    """Noise (H, W), spread 1, whose amplitude falls with frequency to the power beta."""
    y, x = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None]
    frequency = np.hypot(x, y)
    frequency[0, 0] = 1
    wave = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    drawn = np.fft.irfft2(wave / frequency**beta, s=size)
    return np.asarray(drawn / drawn.std())


def outline(rng: Rng, at: tuple[float, float], radius: float, rough: float) -> NDArray[np.int32]:
    """Return the corners of an irregular round shape."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    reach = np.ones(40)
    for wave in range(2, 6):
        reach += rough / wave * np.cos(wave * angles + rng.uniform(0, 2 * np.pi)) * rng.normal()
    points = np.array(at) + radius * reach[:, None] * np.stack(
        [np.cos(angles), np.sin(angles)], axis=1
    )
    return np.asarray(points.astype(np.int32))


def pebbles(rng: Rng, number: int) -> tuple[NDArray[np.intp], Canvas]:
    """Scatter points, at least some way apart; return what `nearest` says of them."""
    least = 0.7 * np.sqrt(WIDTH * HEIGHT / number)
    return nearest(np.array(apart(rng, number, float(least))))


def nearest(points: NDArray[np.float64]) -> tuple[NDArray[np.intp], Canvas]:
    """Return at every pixel which point (n, 2) is nearest, and how much nearer than the next."""
    y, x = np.mgrid[:HEIGHT:2, :WIDTH:2].astype(np.float64)
    which = np.zeros(x.shape, dtype=np.intp)
    first, second = np.full(x.shape, np.inf), np.full(x.shape, np.inf)
    for index, (a, b) in enumerate(points):
        away = np.hypot(x - a, y - b)
        closer = away < first
        second = np.minimum(second, np.where(closer, first, away))
        which[closer] = index
        first = np.minimum(first, away)
    gap = cv2.resize(second - first, (WIDTH, HEIGHT))
    return which.repeat(2, axis=0).repeat(2, axis=1), np.asarray(gap)


def faces(rng: Rng) -> Image:
    image = canvas(colour(rng, 60, 240))
    for _ in range(int(rng.integers(1, 7))):
        x, y, r = rng.uniform(80, WIDTH - 80), rng.uniform(80, HEIGHT - 80), rng.uniform(40, 110)
        skin = tuple(np.array([225, 175, 145]) * rng.uniform(0.5, 1.1))
        cv2.ellipse(image, ((x, y), (1.5 * r, 2 * r), 0), skin, -1, cv2.LINE_AA)
        cv2.ellipse(image, ((x, y - 0.8 * r), (1.6 * r, 0.9 * r), 0), colour(rng, 0, 90), -1)
        for side in (-1, 1):
            eye = (x + side * 0.35 * r, y - 0.1 * r)
            cv2.ellipse(image, (eye, (0.3 * r, 0.16 * r), 0), (250, 250, 250), -1, cv2.LINE_AA)
            cv2.ellipse(image, (eye, (0.13 * r, 0.13 * r), 0), (50, 35, 30), -1, cv2.LINE_AA)
        cv2.ellipse(image, ((x, y + 0.5 * r), (0.6 * r, 0.2 * r), 0), (170, 70, 75), -1)
    return finished(image, rng)


def street(rng: Rng) -> Image:
    image = canvas(colour(rng, 150, 240))
    x = 0.0
    while x < WIDTH:
        w, h = rng.uniform(60, 160), rng.uniform(150, HEIGHT - 60)
        front = (int(x), int(HEIGHT - h))
        cv2.rectangle(image, front, (int(x + w), HEIGHT), colour(rng, 60, 200), -1)
        pane = colour(rng, 20, 255)
        for row in np.arange(HEIGHT - h + 15, HEIGHT - 20, 38):
            for column in np.arange(x + 10, x + w - 18, 28):
                a, b = (int(column), int(row)), (int(column + 14), int(row + 20))
                cv2.rectangle(image, a, b, pane, -1)
        x += w + rng.uniform(0, 8)
    return finished(image, rng)


def chart(rng: Rng) -> Image:
    image = canvas((255, 255, 255))
    for y in range(40, HEIGHT, 60):
        cv2.line(image, (50, y), (WIDTH - 30, y), (215, 215, 215), 1)
    for _ in range(int(rng.integers(2, 5))):
        steps = np.cumsum(rng.normal(0, 14, 60)) + rng.uniform(120, 400)
        points = np.stack([np.linspace(50, WIDTH - 30, 60), steps], axis=1).astype(np.int32)
        ink = colour(rng, 0, 200)
        cv2.polylines(image, [points], False, ink, 2, cv2.LINE_AA)
        for px, py in points[::4]:
            cv2.circle(image, (int(px), int(py)), 5, ink, -1, cv2.LINE_AA)
    return finished(image, rng)


def gram(rng: Rng) -> Image:
    """Bacteria in Gram's stain: violet cocci in clusters, pink rods."""
    image = canvas((238, 228, 222))
    for _ in range(int(rng.integers(20, 50))):
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        for _ in range(int(rng.integers(3, 25))):
            at = (x + rng.normal(0, 14), y + rng.normal(0, 14))
            cv2.ellipse(image, (at, (7, 7), 0), (84, 48, 132), -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(40, 160))):
        ellipse(image, rng, (5, rng.uniform(14, 26)), (214, 110, 140))
    return finished(image, rng)


def fluorescence(rng: Rng) -> Image:
    image = canvas((4, 6, 8))
    for _ in range(int(rng.integers(40, 160))):
        r = rng.uniform(18, 34)
        ellipse(image, rng, (r, r * rng.uniform(0.8, 1.2)), (15, rng.uniform(90, 240), 60))
        ellipse(image, rng, (r * 0.6, r * 0.6), (30, 60, rng.uniform(120, 240)))
    return finished(image, rng)


def cytology(rng: Rng) -> Image:
    """Squamous cells in Papanicolaou's stain: wide, angular, pale, with a small nucleus."""
    image = canvas((236, 238, 240))
    tints = np.array([[175, 205, 205], [228, 190, 175], [190, 200, 225]])
    for _ in range(int(rng.integers(25, 60))):
        centre = rng.uniform(0, 1, 2) * (WIDTH, HEIGHT)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        reach = rng.uniform(45, 80, 7)[:, None]
        corners = centre + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        layer = image.copy()
        ink = tuple(float(v) for v in tints[rng.integers(3)] + rng.normal(0, 8, 3))
        cv2.fillPoly(layer, [corners.astype(np.int32)], ink, cv2.LINE_AA)
        image = 0.35 * image + 0.65 * layer
        at = (float(centre[0]), float(centre[1]))
        cv2.ellipse(image, (at, (13, 11), 0), (70, 60, 110), -1, cv2.LINE_AA)
    return finished(image, rng)


def coins(rng: Rng) -> Image:
    """Round things of one size, close together."""
    image = canvas(colour(rng, 170, 245))
    r = rng.uniform(24, 60)
    ink = np.array(colour(rng, 60, 190))
    for y in np.arange(0, HEIGHT, 2.3 * r):
        for x in np.arange(0, WIDTH, 2.3 * r):
            at = (x + rng.normal(0, 0.12 * r), y + rng.normal(0, 0.12 * r))
            shade = tuple(float(v) for v in ink * rng.uniform(0.85, 1.1))
            cv2.ellipse(image, (at, (2 * r, 2 * r), 0), shade, -1, cv2.LINE_AA)
            rim = tuple(float(v) for v in ink * 0.6)
            cv2.ellipse(image, (at, (1.7 * r, 1.7 * r), 0), rim, 2, cv2.LINE_AA)
    return finished(image, rng)


def foliage(rng: Rng) -> Image:
    image = canvas((60, 80, 40))
    for _ in range(900):
        ink = np.array([90, 140, 60]) * rng.uniform(0.5, 1.5) + rng.normal(0, 10, 3)
        size = (rng.uniform(10, 26), rng.uniform(30, 70))
        ellipse(image, rng, size, tuple(float(v) for v in ink))
    return finished(image, rng)


def bricks(rng: Rng) -> Image:
    image = canvas((205, 200, 190))
    base = np.array([170, 85, 65])
    for row, y in enumerate(range(0, HEIGHT, 34)):
        for x in range(-80 + 40 * (row % 2), WIDTH, 80):
            ink = tuple(float(v) for v in base * rng.uniform(0.75, 1.2))
            cv2.rectangle(image, (x + 2, y + 2), (x + 76, y + 30), ink, -1)
    return finished(image, rng)


def fabric(rng: Rng) -> Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pitch, angle = rng.uniform(6, 22), rng.uniform(0, np.pi)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    weave = 0.5 + 0.25 * (np.sin(2 * np.pi * u / pitch) + np.sin(2 * np.pi * v / pitch))
    first, last = np.array(colour(rng)), np.array(colour(rng))
    return finished(first + (last - first) * weave[..., None], rng)


def plate(rng: Rng) -> Image:
    """Colonies on agar."""
    image = canvas((30, 30, 30))
    agar = colour(rng, 140, 225)
    cv2.ellipse(image, ((WIDTH / 2, HEIGHT / 2), (510, 510), 0), agar, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(20, 120))):
        r = rng.uniform(5, 16)
        ellipse(image, rng, (r, r), (235, 228, 190))
    return finished(image, rng)


def handwriting(rng: Rng) -> Image:
    image = canvas((248, 246, 238))
    for y in range(50, HEIGHT, 48):
        points = [(30.0, float(y))]
        while points[-1][0] < WIDTH - 40:
            px, _ = points[-1]
            points.append((px + rng.uniform(3, 9), y + rng.normal(0, 9)))
        line = np.array(points, dtype=np.int32)
        cv2.polylines(image, [line], False, (30, 40, 110), 2, cv2.LINE_AA)
    return finished(image, rng)


def trichrome(rng: Rng) -> Image:
    """Tissue in Masson's trichrome: blue collagen, red muscle, dark nuclei."""
    image = canvas((190, 205, 225))
    for _ in range(260):
        ink = ((196, 70, 90), (110, 140, 200))[int(rng.integers(2))]
        layer = image.copy()
        ellipse(layer, rng, (rng.uniform(16, 40), rng.uniform(90, 260)), ink)
        image = 0.4 * image + 0.6 * layer
    for _ in range(300):
        ellipse(image, rng, (rng.uniform(5, 9), rng.uniform(10, 20)), (60, 30, 60))
    return finished(image, rng)


def food(rng: Rng) -> Image:
    """Cherries, peas and the like on a plate."""
    image = canvas(colour(rng, 200, 250))
    ink, r = np.array(colour(rng, 30, 200)), rng.uniform(30, 60)
    for _ in range(int(rng.integers(10, 40))):
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        for step in np.linspace(1, 0.1, 8):
            shade = tuple(float(v) for v in np.clip(ink + (1 - step) * 110, 0, 255))
            at = (x - (1 - step) * 0.3 * r, y - (1 - step) * 0.3 * r)
            cv2.ellipse(image, (at, (2 * r * step, 2 * r * step), 0), shade, -1, cv2.LINE_AA)
    return finished(image, rng)


def smear_of_cervix(rng: Rng) -> Image:
    """Papanicolaou's stain: large thin cells of blunt outline, folded, with small round nuclei."""
    image = canvas(tint(rng, (238, 236, 232), 5))
    tints = [(120, 180, 190), (235, 160, 120), (230, 150, 180)]
    chosen = tints[int(rng.integers(3))]
    radius = rng.uniform(28, 80)
    for at in apart(rng, int(rng.integers(8, 70)), 1.1 * radius):
        shape = outline(rng, at, radius * rng.uniform(0.8, 1.2), 0.25)
        ink = tint(rng, chosen if rng.random() < 0.7 else tints[int(rng.integers(3))], 8)
        layer = image.copy()
        cv2.fillPoly(layer, [shape], ink, cv2.LINE_AA)
        image = blend(image, layer, 0.6)
        layer = image.copy()
        cv2.polylines(layer, [np.ascontiguousarray(shape[::9])], False, ink, 3)
        image = blend(image, layer, 0.5)
        size = radius * rng.uniform(0.28, 0.42)
        disc(image, at, (size, size * rng.uniform(0.8, 1)), tint(rng, (75, 70, 115), 8))
        for _ in range(12):
            speck = (at[0] + rng.normal(0, size / 5), at[1] + rng.normal(0, size / 5))
            disc(image, speck, size / 7, (50, 45, 90))
    return finished(image, rng)


def effusion(rng: Rng) -> Image:
    """Sheets of mesothelial cells: round, each with a large round nucleus, nothing else."""
    image = canvas(tint(rng, (232, 226, 232), 5))
    radius = rng.uniform(20, 38)
    body, core = tint(rng, (180, 165, 215), 10), tint(rng, (120, 70, 150), 10)
    for centre in apart(rng, int(rng.integers(3, 8)), 120):
        for _ in range(int(rng.integers(4, 16))):
            at = (centre[0] + rng.normal(0, 2.2 * radius), centre[1] + rng.normal(0, 2 * radius))
            disc(image, at, 2 * radius * rng.uniform(0.85, 1.15), shaded(body, 0.9))
            disc(image, at, 1.8 * radius, body)
            disc(image, at, radius * rng.uniform(0.9, 1.3), core)
            disc(image, at, radius * 0.2, shaded(core, 0.6))
    return finished(image, rng)


def yeast(rng: Rng) -> Image:
    """Budding yeast in bright field: bright ovals with a dark rim."""
    grey = rng.uniform(150, 210)
    image = canvas(tint(rng, (grey, grey, grey), 3))
    radius = rng.uniform(9, 26)
    for at in apart(rng, int(rng.integers(20, 160)), 2 * radius):
        size = radius * rng.uniform(0.8, 1.2)
        for side in range(1 + int(rng.random() < 0.4)):
            spot = (at[0] + side * size * 1.3, at[1])
            part = size * (0.6 if side else 1)
            disc(image, spot, (2 * part, 1.7 * part), (60, 60, 60))
            disc(image, spot, (1.65 * part, 1.35 * part), (grey + 35, grey + 35, grey + 30))
            disc(image, spot, 0.7 * part, (grey - 10, grey - 10, grey - 10))
    return finished(image, rng)


def pollen(rng: Rng) -> Image:
    """Yellow grains of one size with spikes and a textured wall."""
    image = canvas(tint(rng, (235, 230, 215), 5))
    radius, ink = rng.uniform(18, 50), tint(rng, (215, 165, 60), 15)
    for at in apart(rng, int(rng.integers(10, 90)), 2.2 * radius):
        for angle in np.linspace(0, 2 * np.pi, 18, endpoint=False):
            tip = (at[0] + 1.2 * radius * np.cos(angle), at[1] + 1.2 * radius * np.sin(angle))
            cv2.line(image, tuple(map(int, at)), tuple(map(int, tip)), shaded(ink, 0.7), 2)
        disc(image, at, 2 * radius, shaded(ink, 0.75))
        disc(image, at, 1.7 * radius, ink)
        for _ in range(25):
            speck = (at[0] + rng.normal(0, radius / 3), at[1] + rng.normal(0, radius / 3))
            disc(image, speck, radius / 8, shaded(ink, 0.85))
    return finished(image, rng)


def foam(rng: Rng) -> Image:
    """Bubbles of many sizes, wall to wall."""
    _, gap = pebbles(rng, int(rng.integers(60, 260)))
    wall = np.exp(-gap / rng.uniform(2, 5))[..., None]
    inside = np.array(tint(rng, (205, 215, 220), 12)) + 6 * clouds(rng, 1.2)[..., None]
    return finished(inside * (1 - wall) + np.array(tint(rng, (90, 100, 105), 20)) * wall, rng)


def beads(rng: Rng) -> Image:
    """Glass beads of one size with a highlight and a dark edge, several colours."""
    image = canvas(colour(rng, 170, 245))
    radius = rng.uniform(18, 45)
    inks = [colour(rng, 40, 220) for _ in range(int(rng.integers(1, 5)))]
    for at in apart(rng, int(rng.integers(30, 150)), 2.05 * radius):
        ink = inks[int(rng.integers(len(inks)))]
        disc(image, at, 2 * radius, shaded(ink, 0.6))
        disc(image, at, 1.75 * radius, ink)
        disc(image, (at[0] - 0.35 * radius, at[1] - 0.35 * radius), 0.5 * radius, (250, 250, 250))
    return finished(image, rng)


def onion(rng: Rng) -> Image:
    """Epidermis of an onion: long cells in rows, thin walls, one nucleus each."""
    image = canvas(tint(rng, (225, 190, 150), 20)) + 5 * clouds(rng, 1.2)[..., None]
    wall, core = tint(rng, (130, 80, 60), 15), tint(rng, (120, 60, 70), 15)
    step = rng.uniform(45, 90)
    for row, y in enumerate(np.arange(0, HEIGHT, step)):
        cv2.line(image, (0, int(y)), (WIDTH, int(y + rng.normal(0, 4))), wall, 3, cv2.LINE_AA)
        long = step * rng.uniform(2, 4)
        for x in np.arange(-long * (row % 2) / 2, WIDTH, long):
            a, b = (int(x), int(y)), (int(x + rng.normal(0, 8)), int(y + step))
            cv2.line(image, a, b, wall, 3, cv2.LINE_AA)
            disc(image, (x + long * rng.uniform(0.2, 0.8), y + step / 2), step * 0.25, core)
    return finished(image, rng)


def algae(rng: Rng) -> Image:
    """Chains of green round cells with darker chloroplasts."""
    image = canvas(tint(rng, (228, 232, 215), 5))
    radius = rng.uniform(10, 24)
    for _ in range(int(rng.integers(5, 25))):
        x, y = anywhere(rng)
        heading = rng.uniform(0, 2 * np.pi)
        for _ in range(int(rng.integers(3, 16))):
            ink = tint(rng, (120, 175, 90), 8)
            disc(image, (x, y), 2 * radius, shaded(ink, 0.7))
            disc(image, (x, y), 1.7 * radius, ink)
            disc(image, (x + rng.normal(0, 2), y + rng.normal(0, 2)), radius, shaded(ink, 0.75))
            heading += rng.normal(0, 0.3)
            x, y = x + 1.9 * radius * np.cos(heading), y + 1.9 * radius * np.sin(heading)
    return finished(image, rng)


def urine(rng: Rng) -> Image:
    """Sediment: crystals, casts, a few pale cells."""
    image = canvas(tint(rng, (205, 205, 180), 8))
    edge = (110, 110, 95)
    for at in apart(rng, int(rng.integers(15, 60)), 40):
        size, turn = rng.uniform(12, 40), rng.uniform(0, 180)
        kind = int(rng.integers(3))
        if kind == 0:
            box = cv2.boxPoints((at, (size, size), turn)).astype(np.int32)
            cv2.polylines(image, [box], True, edge, 2, cv2.LINE_AA)
            cv2.line(image, tuple(map(int, box[0])), tuple(map(int, box[2])), edge, 1, cv2.LINE_AA)
            cv2.line(image, tuple(map(int, box[1])), tuple(map(int, box[3])), edge, 1, cv2.LINE_AA)
        elif kind == 1:
            disc(image, at, (size * 0.5, size * 3.5), (180, 178, 150), turn)
        else:
            ring(image, at, size, edge, 2)
            disc(image, at, 0.35 * size, (150, 150, 130))
    return finished(image, rng)


def glands(rng: Rng) -> Image:
    """Colon in haematoxylin and eosin: rings of nuclei around a pale lumen in pink stroma."""
    image = canvas(tint(rng, (225, 150, 185), 8)) + 10 * clouds(rng, 1.1)[..., None]
    radius = rng.uniform(35, 80)
    core = tint(rng, (85, 55, 135), 8)
    for at in apart(rng, 40, 2.4 * radius):
        disc(image, at, 2.2 * radius, (215, 180, 215))
        disc(image, at, 0.8 * radius, (245, 240, 245))
        for angle in np.arange(0, 2 * np.pi, rng.uniform(0.2, 0.35)):
            spot = (at[0] + 0.9 * radius * np.cos(angle), at[1] + 0.9 * radius * np.sin(angle))
            disc(image, spot, (radius * 0.3, radius * 0.17), core, float(np.degrees(angle)))
    for _ in range(int(rng.integers(60, 200))):
        ellipse(image, rng, (radius * 0.12, radius * 0.3), core)
    return finished(image, rng)


def liver(rng: Rng) -> Image:
    """Plates of polygonal pink cells, a round nucleus in each, slits between."""
    cell, gap = pebbles(rng, int(rng.integers(60, 200)))
    shade = rng.normal(0, 7, int(cell.max()) + 1)[cell][..., None]
    image = np.array(tint(rng, (215, 135, 165), 10)) + shade + 5 * clouds(rng, 0.9)[..., None]
    wall = np.exp(-gap / 3)[..., None]
    image = image * (1 - 0.5 * wall) + np.array((240, 225, 235)) * 0.5 * wall
    for index in range(int(cell.max()) + 1):
        y, x = np.nonzero(cell == index)
        if len(x):
            size = 0.35 * np.sqrt(len(x))
            disc(image, (float(x.mean()), float(y.mean())), size, tint(rng, (95, 70, 145), 8))
    return finished(image, rng)


def fat(rng: Rng) -> Image:
    """Fat tissue: large empty cells between thin pink walls."""
    _, gap = pebbles(rng, int(rng.integers(25, 90)))
    wall = np.exp(-gap / rng.uniform(2, 4))[..., None]
    image = np.array((248, 244, 246)) * (1 - wall) + np.array(tint(rng, (205, 120, 160), 10)) * wall
    for _ in range(int(rng.integers(5, 30))):
        ellipse(image, rng, (6, 14), (90, 60, 140))
    return finished(image, rng)


def spores(rng: Rng) -> Image:
    """Brown ovals of one size, each with a light slit."""
    image = canvas(tint(rng, (236, 232, 224), 4))
    length, ink = rng.uniform(20, 50), tint(rng, (140, 95, 55), 12)
    for at in apart(rng, int(rng.integers(20, 140)), length):
        turn = rng.uniform(0, 180)
        disc(image, at, (0.6 * length, length), shaded(ink, rng.uniform(0.85, 1.15)), turn)
        disc(image, at, (0.08 * length, 0.6 * length), shaded(ink, 1.5), turn)
    return finished(image, rng)


def semen(rng: Rng) -> Image:
    """Stained ovals with a pale cap and a long tail."""
    image = canvas(tint(rng, (228, 224, 230), 5))
    size, ink = rng.uniform(12, 26), tint(rng, (110, 85, 150), 12)
    for at in apart(rng, int(rng.integers(15, 90)), 2.5 * size):
        turn = rng.uniform(0, 2 * np.pi)
        steps = np.linspace(0, 7 * size, 30)
        bend = np.sin(steps / (2 * size) + rng.uniform(0, 6)) * 0.5 * size
        along = np.array([np.cos(turn), np.sin(turn)])
        across = np.array([-along[1], along[0]])
        tail = np.array(at) + steps[:, None] * along + bend[:, None] * across
        cv2.polylines(image, [tail.astype(np.int32)], False, shaded(ink, 1.2), 1, cv2.LINE_AA)
        disc(image, at, (1.5 * size, size), ink, float(np.degrees(turn)))
        cap = (at[0] - 0.35 * size * along[0], at[1] - 0.35 * size * along[1])
        disc(image, cap, 0.7 * size, shaded(ink, 1.35))
    return finished(image, rng)


def culture(rng: Rng) -> Image:
    """Cultured cells in phase contrast: grey spindles with bright halos."""
    grey = rng.uniform(110, 160)
    image = canvas((grey, grey, grey)) + 4 * clouds(rng, 0.6)[..., None]
    for at in apart(rng, int(rng.integers(10, 60)), 45):
        size, turn = rng.uniform(18, 40), rng.uniform(0, 180)
        disc(image, at, (1.25 * size, 3 * size), (grey + 60, grey + 60, grey + 60), turn)
        disc(image, at, (size, 2.7 * size), (grey - 25, grey - 25, grey - 25), turn)
        disc(image, at, 0.6 * size, (grey - 55, grey - 55, grey - 55))
    return finished(image, rng)


def inverted_nuclei(rng: Rng) -> Image:
    """Fluorescent nuclei printed dark on white, as in a paper."""
    image = canvas((252, 252, 252))
    size = rng.uniform(14, 44)
    grey = rng.uniform(40, 150)
    for at in apart(rng, int(rng.integers(20, 140)), 1.1 * size):
        level = float(np.clip(grey + rng.normal(0, 25), 0, 235))
        axes = (size * rng.uniform(0.8, 1.2), size * rng.uniform(0.7, 1))
        disc(image, at, axes, (level, level, level), rng.uniform(0, 180))
    image += 8 * clouds(rng, 0.8)[..., None] * (image < 240)
    return finished(image, rng)


def gravel(rng: Rng) -> Image:
    """Pebbles, each of its own shade, dark between."""
    cell, gap = pebbles(rng, int(rng.integers(60, 300)))
    base = np.array(tint(rng, (150, 140, 125), 25))
    shades = base * rng.uniform(0.6, 1.4, (int(cell.max()) + 1, 1)) + rng.normal(
        0, 6, (int(cell.max()) + 1, 3)
    )
    image = shades[cell] * (1 + 0.06 * clouds(rng, 0.8)[..., None])
    return finished(image * np.clip(gap / 6, 0.15, 1)[..., None], rng)


def knitting(rng: Rng) -> Image:
    """Rows of stitches like the letter V."""
    image = canvas(shaded(colour(rng, 80, 250), 0.45))
    yarn = np.array(colour(rng, 60, 240))
    step = rng.uniform(16, 40)
    for row in np.arange(0, HEIGHT + step, 0.8 * step):
        for column in np.arange(0, WIDTH + step, step):
            for side in (-1, 1):
                ink = shaded(yarn, rng.uniform(0.85, 1.1))
                at = (column + side * 0.25 * step, row)
                disc(image, at, (0.42 * step, 1.0 * step), ink, -side * 28)
    return finished(image, rng)


def page(rng: Rng) -> Image:
    """A printed page: lines of text, a heading, a rule."""
    image = canvas(tint(rng, (246, 244, 238), 4))
    ink = tint(rng, (30, 30, 35), 8)
    size = rng.uniform(0.4, 0.9)
    letters = list("abcdefghijklmnoprstuvw ,.")
    paper = image.astype(np.uint8)
    cv2.putText(paper, "On the method", (40, 50), cv2.FONT_HERSHEY_DUPLEX, 2 * size, ink, 2)
    cv2.line(paper, (40, 70), (WIDTH - 40, 70), ink, 1)
    for y in np.arange(100, HEIGHT, 34 * size + 6):
        line = "".join(rng.choice(letters, int(72 / size / 1.3)))
        cv2.putText(paper, line, (40, int(y)), cv2.FONT_HERSHEY_COMPLEX, size, ink, 1, cv2.LINE_AA)
    return finished(paper.astype(np.float64), rng)


def dots(rng: Rng) -> Image:
    """Spots of one colour printed in a regular pattern."""
    image = canvas(colour(rng, 190, 255))
    ink, step, turn = colour(rng, 30, 200), rng.uniform(24, 80), rng.uniform(0, np.pi / 2)
    size = step * rng.uniform(0.4, 0.85)
    reach = np.arange(-WIDTH, 2 * WIDTH, step)
    for a in reach:
        for b in reach:
            x, y = a * np.cos(turn) - b * np.sin(turn), a * np.sin(turn) + b * np.cos(turn)
            if -size < x < WIDTH + size and -size < y < HEIGHT + size:
                disc(image, (float(x), float(y)), size, ink)
    return finished(image, rng)


def sweets(rng: Rng) -> Image:
    """Round sweets of six colours in a heap."""
    image = canvas(colour(rng, 120, 250))
    radius = rng.uniform(22, 50)
    inks = [
        (200, 40, 40),
        (240, 190, 40),
        (60, 150, 60),
        (50, 80, 180),
        (130, 80, 50),
        (230, 120, 40),
    ]
    for at in apart(rng, 220, 1.6 * radius):
        ink = tint(rng, inks[int(rng.integers(6))], 5)
        disc(image, at, (2.1 * radius, 2 * radius), shaded(ink, 0.6))
        disc(image, (at[0] - 1, at[1] - 2), (1.9 * radius, 1.8 * radius), ink)
        disc(image, (at[0] - 0.3 * radius, at[1] - 0.4 * radius), 0.4 * radius, shaded(ink, 1.5))
    return finished(image, rng)


def washers(rng: Rng) -> Image:
    """Metal rings of one size."""
    image = canvas(colour(rng, 170, 245))
    radius, hole = rng.uniform(18, 50), rng.uniform(0.3, 0.6)
    metal = tint(rng, (135, 135, 140), 12)
    for at in apart(rng, int(rng.integers(30, 160)), 2.1 * radius):
        shade = rng.uniform(0.85, 1.15)
        disc(image, at, 2 * radius, shaded(metal, shade * 0.7))
        disc(image, at, 1.85 * radius, shaded(metal, shade))
        disc(image, at, 2 * hole * radius, shaded(image[2, 2], 0.9))
    return finished(image, rng)


def doughnuts(rng: Rng) -> Image:
    """Rings of baked dough, brown, with a light hole and a bright glaze."""
    image = canvas(colour(rng, 190, 250))
    radius = rng.uniform(20, 55)
    dough = tint(rng, (205, 140, 75), 15)
    for at in apart(rng, int(rng.integers(20, 120)), 2.1 * radius):
        for step in np.linspace(1, 0.4, 9):
            by = 0.75 + 0.5 * np.sin((1 - step) / 0.6 * np.pi)
            disc(image, at, 2 * radius * step, shaded(dough, by))
        disc(image, at, 0.6 * radius, shaded(image[2, 2], 0.95))
    return finished(image, rng)


def pills(rng: Rng) -> Image:
    """Tablets of one colour with a score line."""
    image = canvas(colour(rng, 60, 200))
    radius, ink = rng.uniform(20, 45), tint(rng, (235, 190, 195), 25)
    for at in apart(rng, int(rng.integers(20, 90)), 2.1 * radius):
        disc(image, at, 2.05 * radius, shaded(ink, 0.7))
        disc(image, at, 1.85 * radius, ink)
        turn = rng.uniform(0, np.pi)
        dx, dy = 0.7 * radius * np.cos(turn), 0.7 * radius * np.sin(turn)
        ends = ((int(at[0] - dx), int(at[1] - dy)), (int(at[0] + dx), int(at[1] + dy)))
        cv2.line(image, *ends, shaded(ink, 0.8), 2, cv2.LINE_AA)
    return finished(image, rng)


def matrix_code(rng: Rng) -> Image:
    """Black and white squares."""
    pitch = int(rng.integers(8, 26))
    grid = rng.integers(0, 2, (HEIGHT // pitch + 1, WIDTH // pitch + 1))
    big = np.kron(grid, np.ones((pitch, pitch)))[:HEIGHT, :WIDTH, None]
    return finished(25 + 220 * big + np.zeros(3), rng)


def town_map(rng: Rng) -> Image:
    """Roads, blocks of houses, a river and trees as green circles."""
    image = canvas((242, 238, 228))
    for _ in range(int(rng.integers(40, 120))):
        x, y = anywhere(rng)
        far = (int(x + rng.uniform(15, 60)), int(y + rng.uniform(15, 60)))
        cv2.rectangle(image, (int(x), int(y)), far, (218, 208, 200), -1)
    for _ in range(int(rng.integers(20, 60))):
        disc(image, anywhere(rng), rng.uniform(8, 22), (170, 210, 150))
    for _ in range(int(rng.integers(6, 16))):
        a, b = anywhere(rng), anywhere(rng)
        ends = (tuple(map(int, a)), tuple(map(int, b)))
        cv2.line(image, *ends, (120, 120, 120), 11, cv2.LINE_AA)
        cv2.line(image, *ends, (255, 245, 180), 8, cv2.LINE_AA)
    return finished(image, rng)


def drops(rng: Rng) -> Image:
    """Water drops of many sizes on glass."""
    image = canvas(colour(rng, 110, 210)) + 12 * clouds(rng, 1.4)[..., None]
    base = image[0, 0].copy()
    for _ in range(int(rng.integers(60, 220))):
        at, radius = anywhere(rng), float(rng.lognormal(2.6, 0.6))
        disc(image, at, 2 * radius, shaded(base, 0.6))
        disc(image, (at[0], at[1] + 0.15 * radius), 1.6 * radius, shaded(base, 1.05))
        disc(image, (at[0] - 0.3 * radius, at[1] - 0.4 * radius), 0.35 * radius, (250, 250, 250))
    return finished(image, rng)


def city_lights(rng: Rng) -> Image:
    """Lights out of focus at night: bright discs of one size that overlap."""
    image = canvas(tint(rng, (15, 15, 25), 5))
    radius = rng.uniform(14, 40)
    for _ in range(int(rng.integers(30, 160))):
        ink = tint(rng, (230, 170, 90), 45)
        at = anywhere(rng)
        layer = image.copy()
        disc(layer, at, 2 * radius, ink)
        image = np.maximum(image, blend(image, layer, 0.7))
    return finished(image, rng)


def honeycomb(rng: Rng) -> Image:
    """Hexagons, wall to wall, golden."""
    step = rng.uniform(24, 70)
    points = [
        (x + (row % 2) * step / 2, y)
        for row, y in enumerate(np.arange(0, HEIGHT + step, 0.866 * step))
        for x in np.arange(0, WIDTH + step, step)
    ]
    _, gap = nearest(np.array(points))
    wall = np.exp(-gap / 4)[..., None]
    gold = np.array(tint(rng, (215, 150, 40), 20))
    deep = gold * (0.6 - 0.25 * gap[..., None] / step)
    return finished(deep * (1 - wall) + gold * 1.1 * wall, rng)


def lentils(rng: Rng) -> Image:
    """A heap of lentils or grains: ovals of one colour upon each other."""
    base = np.array(tint(rng, (170, 115, 70), 30))
    image = canvas(shaded(base, 0.35))
    size, flat = rng.uniform(25, 60), rng.uniform(0.35, 1)
    for _ in range(int(2.5 * WIDTH * HEIGHT / (size * size * flat))):
        ink, turn, at = shaded(base, rng.uniform(0.7, 1.2)), rng.uniform(0, 180), anywhere(rng)
        disc(image, at, (size * flat, size), shaded(ink, 0.6), turn)
        disc(image, at, (size * flat * 0.85, size * 0.85), ink, turn)
    return finished(image, rng)


def fundus(rng: Rng) -> Image:
    """The back of an eye: an orange disc on black with vessels and a bright spot."""
    image = canvas((5, 3, 3))
    disc(image, (WIDTH / 2, HEIGHT / 2), 500, tint(rng, (205, 105, 45), 15))
    for _ in range(int(rng.integers(8, 20))):
        heading, point = rng.uniform(0, 2 * np.pi), np.array([WIDTH * 0.6, HEIGHT / 2])
        path = [point]
        for _ in range(40):
            heading += rng.normal(0, 0.15)
            path.append(path[-1] + 7 * np.array([np.cos(heading), np.sin(heading)]))
        line = np.array(path, dtype=np.int32)
        cv2.polylines(image, [line], False, (130, 30, 20), int(rng.integers(1, 5)), cv2.LINE_AA)
    disc(image, (WIDTH * 0.6, HEIGHT / 2), 70, (245, 210, 120))
    for _ in range(int(rng.integers(0, 25))):
        spot = (WIDTH / 2 + rng.normal(0, 90), HEIGHT / 2 + rng.normal(0, 90))
        disc(image, spot, rng.uniform(4, 14), (120, 35, 25))
    return finished(image, rng)


def stars(rng: Rng) -> Image:
    image = canvas((6, 6, 12))
    for _ in range(int(rng.integers(80, 400))):
        disc(image, anywhere(rng), float(rng.lognormal(1.2, 0.5)), tint(rng, (225, 225, 230), 20))
    return finished(image, rng)


def gel(rng: Rng) -> Image:
    """Lanes of dark bands."""
    image = canvas(tint(rng, (200, 200, 210), 8))
    pitch = rng.uniform(45, 90)
    for x in np.arange(30, WIDTH - 30, pitch):
        for _ in range(int(rng.integers(2, 10))):
            level = rng.uniform(30, 150)
            y = rng.uniform(20, HEIGHT - 20)
            disc(
                image,
                (x + pitch / 4, y),
                (0.6 * pitch, rng.uniform(6, 16)),
                (level, level, level + 15),
            )
    return finished(cv2.GaussianBlur(image, (0, 0), 2.0), rng)


def immunostain(rng: Rng) -> Image:
    """Nuclei in brown (stained) and blue (not), close together on pale grey."""
    image = canvas(tint(rng, (222, 220, 226), 5)) + 6 * clouds(rng, 1)[..., None]
    size, share = rng.uniform(14, 40), rng.uniform(0.2, 0.8)
    for at in apart(rng, int(rng.integers(80, 350)), 1.05 * size):
        ink = (130, 80, 50) if rng.random() < share else (120, 135, 185)
        axes = (size * rng.uniform(0.7, 1.1), size * rng.uniform(0.7, 1.1))
        disc(image, at, axes, tint(rng, ink, 10), rng.uniform(0, 180))
    return finished(image, rng)


def scatter_plot(rng: Rng) -> Image:
    """A flow-cytometry plot: thousands of small dots in clouds, axes."""
    image = canvas((255, 255, 255))
    for _ in range(int(rng.integers(2, 5))):
        ink, centre = colour(rng, 20, 200), np.array(anywhere(rng))
        for x, y in centre + rng.normal(0, 1, (500, 2)) * rng.uniform(20, 80, 2):
            disc(image, (float(x), float(y)), 4, ink)
    cv2.line(image, (50, 0), (50, HEIGHT - 40), (0, 0, 0), 2)
    cv2.line(image, (50, HEIGHT - 40), (WIDTH, HEIGHT - 40), (0, 0, 0), 2)
    return finished(image, rng)


def stomata(rng: Rng) -> Image:
    """Epidermis of a leaf: jigsaw cells and pairs of guard cells."""
    _, gap = pebbles(rng, int(rng.integers(30, 90)))
    wall = np.exp(-gap / 4)[..., None]
    green = np.array(tint(rng, (190, 215, 160), 10))
    image = green * (1 - wall) + np.array((90, 130, 80)) * wall
    size = rng.uniform(26, 55)
    for at in apart(rng, int(rng.integers(8, 40)), 2 * size):
        turn = rng.uniform(0, 180)
        disc(image, at, (size, 1.4 * size), (90, 140, 80), turn)
        disc(image, at, (0.8 * size, 1.2 * size), (140, 185, 115), turn)
        disc(image, at, (0.15 * size, 0.8 * size), (50, 70, 45), turn)
    return finished(image, rng)


def cartilage(rng: Rng) -> Image:
    """Pairs of cells in violet holes in a pale blue matrix."""
    image = canvas(tint(rng, (205, 195, 225), 8)) + 6 * clouds(rng, 1.2)[..., None]
    size = rng.uniform(18, 40)
    for at in apart(rng, int(rng.integers(15, 90)), 2.2 * size):
        for side in (-0.45, 0.45):
            spot = (at[0] + side * size, at[1] + rng.normal(0, 2))
            disc(image, spot, (1.1 * size, 1.3 * size), (160, 135, 195))
            disc(image, spot, (0.9 * size, 1.1 * size), (240, 236, 244))
            disc(image, spot, 0.45 * size, (100, 65, 140))
    return finished(image, rng)


FIRST: tuple[Kind, ...] = (
    faces,
    street,
    chart,
    gram,
    fluorescence,
    cytology,
    coins,
    foliage,
    bricks,
    fabric,
    plate,
    handwriting,
    trichrome,
    food,
)
FURTHER: tuple[Kind, ...] = (
    smear_of_cervix,
    effusion,
    yeast,
    pollen,
    foam,
    beads,
    onion,
    algae,
    urine,
    glands,
    liver,
    fat,
    spores,
    semen,
    culture,
    inverted_nuclei,
    gravel,
    knitting,
    page,
    dots,
    sweets,
    washers,
    doughnuts,
    pills,
    matrix_code,
    town_map,
    drops,
    city_lights,
    honeycomb,
    lentils,
    fundus,
    stars,
    gel,
    immunostain,
    scatter_plot,
    stomata,
    cartilage,
)
JUDGE = frozenset(
    {
        "algae",
        "city_lights",
        "culture",
        "fundus",
        "glands",
        "gravel",
        "honeycomb",
        "immunostain",
        "inverted_nuclei",
        "knitting",
        "liver",
        "onion",
        "page",
        "pills",
        "pollen",
        "spores",
        "urine",
        "washers",
        "yeast",
    }
)
"""Names of the further kinds that were not looked at while the evidence was chosen."""
