"""One colour for each optimizer, in every picture: reports, figures of recipes, model cards.

    PALETTE                          each colour on white and on a dark page; its first eight tell metrics apart
    assign(["emosens", "adamw"])     -> [1, 0], places in the palette

Emo optimizers are warm, green or purple, all others blue or grey. A second setting of an optimizer in the same picture
gets a colour that none of the picture's optimizers owns, and where these are used up, dashes.
"""

import re
from collections.abc import Sequence
from itertools import count

PALETTE = (
    ("#0068b3", "#5fb2f2"),
    ("#c75000", "#f59a4c"),
    ("#008a63", "#3fcf9f"),
    ("#b0458c", "#e58cc5"),
    ("#8a6d00", "#dcc042"),
    ("#5b54c9", "#a9a4ff"),
    ("#a33030", "#f08080"),
    ("#48808f", "#86c5d4"),
    ("#7d3c98", "#c792e0"),
    ("#5f8a00", "#a6d04a"),
    ("#d1495b", "#ff8fa0"),
    ("#7a4a1e", "#c89b6c"),
    ("#6b7280", "#a9b0ba"),
    ("#27407a", "#8fa8e8"),
    ("#3d8fc4", "#9fd0f0"),
    ("#2b2f36", "#d5dae2"),
    ("#a87900", "#f0c050"),
    ("#00818a", "#4fd0d8"),
)
OWN = {
    **{"adamw": 0, "lion": 7, "sgd": 12, "prodigy": 13, "schedulefree": 14, "momo": 15},
    **{"emosens": 1, "emonavi": 2, "emofact": 3, "emolynx": 4, "emofree": 5, "emocats": 6, "emotion": 8},
    **{"emoairy": 9, "emovoid": 10, "emoclan": 11, "emoneco": 16, "emozeal": 17},
}
WARM = (1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 16, 17)
COOL = (0, 7, 12, 13, 14, 15)


def assign(optimizers: Sequence[str]) -> list[int]:
    """Returns a place in `PALETTE` for each line of a picture; beyond its end: the same colours, dashed.

    Args:
        optimizers: of each line, by any of its names: "emosens-3.9", "adamw_torch".
    """
    names = [re.split(r"[-_]", name)[0] for name in optimizers]
    free = set(range(len(PALETTE))) - {OWN[name] for name in names if name in OWN}
    dashed = count(len(PALETTE))
    given: list[int] = []
    for name in names:
        place = OWN.get(name)
        if place is None or place in given:
            wanted = (*WARM, *COOL) if name.startswith("emo") else (*COOL, *WARM)
            place = next((each for each in wanted if each in free), None)
            place = next(dashed) if place is None else place
        free.discard(place)
        given.append(place)
    return given


def look(place: int) -> tuple[str, bool]:
    """Returns the colour on white of a place that `assign` gave, and whether its line is dashed."""
    return PALETTE[place % len(PALETTE)][0], place >= len(PALETTE)


def style() -> str:
    """Returns the palette as CSS variables --c0, --c1, ..., with a class of each name, by the theme of the page."""
    light, dark = (" ".join(f"--c{place}: {pair[at]};" for place, pair in enumerate(PALETTE)) for at in (0, 1))
    classes = " ".join(f".c{place} {{ color: var(--c{place}); }}" for place in range(len(PALETTE)))
    return f':root {{ {light} }}\n:root[data-theme="dark"] {{ {dark} }}\n{classes}\n'
