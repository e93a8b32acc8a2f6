"""The subjects that the demo checkpoints know: icon names of the Fluent emoji sets, and second names for some."""

_ANIMALS = """
cat-face dog-face fox wolf bear panda polar-bear koala tiger-face lion cow-face pig-face frog monkey-face rabbit-face
mouse-face hamster horse-face unicorn penguin owl octopus spouting-whale dolphin fish tropical-fish turtle snail
butterfly honeybee lady-beetle duck baby-chick swan elephant sauropod t-rex crab
""".split()

_FOOD = """
red-apple green-apple pear tangerine lemon banana watermelon grapes strawberry cherries peach pineapple avocado
eggplant carrot tomato mushroom broccoli hamburger pizza doughnut cookie cupcake soft-ice-cream hot-dog french-fries
taco cooking hot-beverage teapot lollipop candy
""".split()

_VEHICLES = """
automobile taxi bus rocket airplane helicopter sailboat flying-saucer locomotive tractor delivery-truck pickup-truck
""".split()

_PLANTS_AND_SKY = """
sunflower tulip rose cherry-blossom cactus palm-tree evergreen-tree deciduous-tree maple-leaf four-leaf-clover star
sun-with-face crescent-moon cloud rainbow high-voltage fire snowflake ringed-planet
""".split()

_THINGS = """
robot alien-monster alien ghost jack-o-lantern skull teddy-bear crown top-hat umbrella gem-stone key locked bell
balloon wrapped-gift candle camera television alarm-clock soccer-ball basketball guitar trophy red-heart house castle
volcano magnet bomb hammer pencil anchor t-shirt crystal-ball grinning-face smiling-face-with-sunglasses
""".split()

SUBJECTS: tuple[str, ...] = tuple(_ANIMALS + _FOOD + _VEHICLES + _PLANTS_AND_SKY + _THINGS)

_ALIASES: dict[str, str] = {
    "fox": "fox face",
    "robot": "robot face",
    "bear": "bear face",
    "panda": "panda face",
    "frog": "frog face",
    "tiger-face": "tiger",
    "dog-face": "dog",
    "cat-face": "cat",
    "cow-face": "cow",
    "pig-face": "pig",
    "monkey-face": "monkey",
    "rabbit-face": "rabbit",
    "mouse-face": "mouse",
    "horse-face": "horse",
    "spouting-whale": "whale",
    "honeybee": "bee",
    "lady-beetle": "ladybug",
    "baby-chick": "chick",
    "sauropod": "dinosaur",
    "red-apple": "apple",
    "tangerine": "orange fruit",
    "soft-ice-cream": "ice cream",
    "french-fries": "fries",
    "cooking": "fried egg",
    "hot-beverage": "cup of coffee",
    "doughnut": "donut",
    "hamburger": "burger",
    "automobile": "car",
    "airplane": "plane",
    "sailboat": "boat",
    "flying-saucer": "ufo",
    "locomotive": "steam train",
    "delivery-truck": "truck",
    "cherry-blossom": "pink flower",
    "deciduous-tree": "tree",
    "evergreen-tree": "fir tree",
    "four-leaf-clover": "clover",
    "sun-with-face": "sun",
    "crescent-moon": "moon",
    "high-voltage": "lightning",
    "ringed-planet": "planet",
    "jack-o-lantern": "pumpkin",
    "gem-stone": "diamond",
    "locked": "padlock",
    "wrapped-gift": "gift",
    "soccer-ball": "football",
    "red-heart": "heart",
    "grinning-face": "smiley",
}


def spoken_names(subject: str) -> tuple[str, ...]:
    """The words that captions use for a subject: its icon's name, and a common second name where there is one."""
    name = subject.replace("-", " ")
    alias = _ALIASES.get(subject)
    return (name,) if alias is None else (name, alias)
