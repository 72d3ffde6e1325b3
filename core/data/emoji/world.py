"""The world of Emoji-VQA: what exists, how things habitually look, and how a scene is composed.

Photographs have priors: bananas are yellow, kites are held by children. So every category and every single object
here has favourites (background, frame, badge, size, place, company, number), drawn once from the world's seed and
followed a bit less than half of the time. Without them one conditional network learns each question family once
and for all, and there is nothing left for meta-learning to do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

# category -> (plural, {name: glyph}); everyday names, one object per glyph
# fmt: off
CATEGORIES: dict[str, tuple[str, dict[str, str]]] = {
    "animal": ("animals", dict(dog="🐶", cat="🐱", horse="🐴", cow="🐮", pig="🐷", rabbit="🐰", bear="🐻", frog="🐸",
                               monkey="🐵", fox="🦊")),
    "bird": ("birds", dict(chicken="🐔", penguin="🐧", duck="🦆", eagle="🦅", owl="🦉", parrot="🦜", flamingo="🦩",
                           swan="🦢", chick="🐤", peacock="🦚")),
    "sea animal": ("sea animals", dict(fish="🐟", octopus="🐙", crab="🦀", dolphin="🐬", whale="🐋", shark="🦈",
                                       turtle="🐢", shrimp="🦐", squid="🦑", pufferfish="🐡")),
    "bug": ("bugs", dict(bee="🐝", ladybird="🐞", butterfly="🦋", ant="🐜", spider="🕷", snail="🐌", cricket="🦗",
                         caterpillar="🐛", scorpion="🦂", beetle="🪲")),
    "fruit": ("fruits", dict(apple="🍎", banana="🍌", grape="🍇", orange="🍊", lemon="🍋", strawberry="🍓",
                             cherry="🍒", watermelon="🍉", pineapple="🍍", pear="🍐")),
    "vegetable": ("vegetables", dict(carrot="🥕", broccoli="🥦", corn="🌽", tomato="🍅", eggplant="🍆",
                                     cucumber="🥒", potato="🥔", onion="🧅", pepper="🌶", mushroom="🍄")),
    "dish": ("dishes", dict(pizza="🍕", burger="🍔", fries="🍟", sandwich="🥪", taco="🌮", bread="🍞", cheese="🧀",
                            egg="🥚", sushi="🍣", salad="🥗")),
    "sweet": ("sweets", dict(cake="🍰", doughnut="🍩", cookie="🍪", chocolate="🍫", candy="🍬", lollipop="🍭",
                             icecream="🍦", pie="🥧", cupcake="🧁", honey="🍯")),
    "drink": ("drinks", dict(coffee="☕", tea="🍵", milk="🥛", wine="🍷", beer="🍺", cocktail="🍸", juice="🧃",
                             soda="🥤", sake="🍶", champagne="🍾")),
    "vehicle": ("vehicles", dict(car="🚗", bus="🚌", bicycle="🚲", train="🚂", plane="✈", rocket="🚀", sailboat="⛵",
                                 helicopter="🚁", tractor="🚜", truck="🚚")),
    "instrument": ("instruments", dict(guitar="🎸", piano="🎹", trumpet="🎺", violin="🎻", drum="🥁",
                                       saxophone="🎷", banjo="🪕", accordion="🪗", bell="🔔", microphone="🎤")),
    "toy": ("toys", dict(football="⚽", basketball="🏀", tennis="🎾", bowling="🎳", badminton="🏸", kite="🪁",
                         skateboard="🛹", dice="🎲", teddy="🧸", yoyo="🪀")),
    "garment": ("garments", dict(shirt="👕", trousers="👖", dress="👗", shoe="👟", cap="🧢", hat="🎩", gloves="🧤",
                                 scarf="🧣", socks="🧦", glasses="👓")),
    "tool": ("tools", dict(hammer="🔨", wrench="🔧", saw="🪚", screwdriver="🪛", scissors="✂", key="🔑", axe="🪓",
                           torch="🔦", magnet="🧲", broom="🧹")),
    "weather sign": ("weather signs", dict(sun="☀", rain="🌧", snowflake="❄", lightning="⚡", rainbow="🌈",
                                           tornado="🌪", cloud="☁", moon="🌙", umbrella="☂", snowman="⛄")),
    "plant": ("plants", dict(cactus="🌵", pine="🌲", palm="🌴", sunflower="🌻", rose="🌹", tulip="🌷", clover="🍀",
                             maple="🍁", wheat="🌾", bamboo="🎋")),
    "furnishing": ("furnishings", dict(bed="🛏", chair="🪑", sofa="🛋", door="🚪", bath="🛁", toilet="🚽",
                                       mirror="🪞", clock="🕰", candle="🕯", basket="🧺")),
    "device": ("devices", dict(phone="📱", laptop="💻", television="📺", camera="📷", watch="⌚", headphones="🎧",
                               battery="🔋", lightbulb="💡", radio="📻", printer="🖨")),
    "building": ("buildings", dict(house="🏠", castle="🏰", church="⛪", hospital="🏥", factory="🏭", tower="🗼",
                                   tent="⛺", stadium="🏟", mosque="🕌", temple="🛕")),
}
# fmt: on

OBJECTS: tuple[str, ...] = tuple(name for _, names in CATEGORIES.values() for name in names)
GLYPHS: dict[str, str] = {name: glyph for _, names in CATEGORIES.values() for name, glyph in names.items()}
CATEGORY_OF: dict[str, str] = {name: category for category, (_, names) in CATEGORIES.items() for name in names}
CATEGORY_NAMES: tuple[str, ...] = tuple(CATEGORIES)

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 45, 48), "orange": (247, 140, 30), "yellow": (250, 218, 60), "green": (60, 165, 75),
    "blue": (45, 95, 215), "purple": (135, 60, 180), "pink": (250, 160, 200), "brown": (125, 80, 45),
    "black": (30, 30, 32), "white": (248, 248, 248), "grey": (150, 152, 156),
}  # fmt: skip
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "diamond", "cross")
SIZES: tuple[str, ...] = ("small", "medium", "large")
PLACES: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
COUNTS: tuple[str, ...] = ("one", "two", "three", "four")
# the place that lies in a direction from a place, where there is one
BESIDE: dict[str, dict[str, str]] = {
    "left of": {"top right": "top left", "bottom right": "bottom left"},
    "right of": {"top left": "top right", "bottom left": "bottom right"},
    "above": {"bottom left": "top left", "bottom right": "top right"},
    "below": {"top left": "bottom left", "top right": "bottom right"},
}


@dataclass(frozen=True)
class Thing:
    """One object of a scene. `shape` and `colour` describe its badge and are both None without one."""

    name: str
    place: str
    size: str
    shape: str | None
    colour: str | None

    @property
    def category(self) -> str:
        return CATEGORY_OF[self.name]


@dataclass(frozen=True)
class Scene:
    """A drawn picture, symbolically: one to four things, each in a place of its own; at most one frame colour."""

    background: str
    frame: str | None
    things: tuple[Thing, ...]
    jitter: int  # seed of offsets, scale and light, which carry no meaning


@dataclass(frozen=True)
class Habit:
    """What somebody prefers; one for every category and one for every object."""

    background: str
    frame: str
    colour: str
    shape: str
    size: str
    place: str
    company: str  # the category of what it is seen with
    count: int


@dataclass(frozen=True)
class WorldConfig:
    """How strong habits are; the world itself is a pure function of these numbers."""

    seed: int = 0
    own_habit: float = 0.27  # share of draws that follow the object's own favourite
    category_habit: float = 0.2  # share of draws that follow its category's
    badge: float = 0.85  # probability that a thing stands on a badge
    frame: float = 0.85  # probability that a scene is framed


class World:
    """Habits drawn from the seed, and scenes composed by them."""

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.habits = {who: _draw_habit(random.Random(f"{config.seed}/habit/{who}"), who)
                       for who in (*CATEGORY_NAMES, *OBJECTS)}  # fmt: skip

    def compose(
        self,
        rng: random.Random,
        main: str | None = None,
        *,
        count: int | None = None,
        fixed: dict[str, str] | None = None,
        company: list[str] | None = None,
    ) -> Scene:
        """Draw a scene around the object `main` (default: any), which comes first in `things`.

        `count` fixes the number of things, `fixed` attributes of the main thing (place, size, shape, colour; a
        fixed shape or colour implies a badge), `company` the names of the other things (as many as fit).
        """
        main = main or rng.choice(OBJECTS)
        count = count or self._follow(rng, main, "count", (1, 2, 3, 4))
        background = self._follow(rng, main, "background", tuple(COLOURS))
        frame = self._follow(rng, main, "frame", tuple(COLOURS)) if rng.random() < self.config.frame else None
        if frame == background:
            frame = rng.choice([colour for colour in COLOURS if colour != background])
        things = [self._thing(rng, main, PLACES, background, fixed or {})]
        names = [main, *(company or [])][:count]
        while len(names) < count:
            if rng.random() < self.config.own_habit + self.config.category_habit:
                pool = tuple(CATEGORIES[self._habitual(rng, main).company][1])
            else:
                pool = OBJECTS
            name = rng.choice(pool)
            if name not in names:
                names.append(name)
        for name in names[1:]:
            free = tuple(place for place in PLACES if place not in {thing.place for thing in things})
            things.append(self._thing(rng, name, free, background, {}))
        return Scene(background, frame, tuple(things), rng.getrandbits(32))

    def _habitual(self, rng: random.Random, name: str) -> Habit:
        """The object's or its category's habit, in proportion to their strengths."""
        own, shared = self.config.own_habit, self.config.category_habit
        return self.habits[name if rng.random() * (own + shared) < own else CATEGORY_OF[name]]

    def _follow(self, rng: random.Random, name: str, attribute: str, options: tuple) -> str | int:
        if rng.random() < self.config.own_habit + self.config.category_habit:
            favourite = getattr(self._habitual(rng, name), attribute)
            if favourite in options:
                return favourite
        return rng.choice(options)

    def _thing(
        self, rng: random.Random, name: str, places: tuple[str, ...], background: str, fixed: dict[str, str]
    ) -> Thing:
        shape = self._follow(rng, name, "shape", SHAPES)
        colour = self._follow(rng, name, "colour", tuple(COLOURS))
        if colour == background:  # a badge must be seen
            colour = rng.choice([other for other in COLOURS if other != background])
        badge = rng.random() < self.config.badge or "shape" in fixed or "colour" in fixed
        thing = Thing(
            name,
            self._follow(rng, name, "place", places),
            self._follow(rng, name, "size", SIZES),
            shape if badge else None,
            colour if badge else None,
        )
        return replace(thing, **fixed)


def _draw_habit(rng: random.Random, who: str) -> Habit:
    own_category = CATEGORY_OF.get(who, who)
    colours = list(COLOURS)
    return Habit(
        background=rng.choice(colours),
        frame=rng.choice(colours),
        colour=rng.choice(colours),
        shape=rng.choice(SHAPES),
        size=rng.choice(SIZES),
        place=rng.choice(PLACES),
        company=rng.choice([category for category in CATEGORY_NAMES if category != own_category]),
        count=rng.randint(1, 4),
    )
