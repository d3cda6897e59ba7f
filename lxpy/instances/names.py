"""Names for instances that were given none: an adjective and an animal, as LXD's are two words."""

import random
from collections.abc import Container

_ADJECTIVES = (
    "able amber bold brave brisk bright calm clever cosy crisp daring deft eager early easy fair fast fine fleet fond "
    "frank fresh gentle glad golden good grand happy hardy honest humble jolly keen kind large light live loyal lucid "
    "lucky mellow merry mild modest neat nimble noble patient plain proud quick quiet rapid ready rosy sharp silent "
    "simple sleek smart smooth snug solid spry steady still strong sunny sure swift tidy true vivid warm wise witty"
).split()
_ANIMALS = (
    "ant ape badger bat bear beaver bee bison boar bream camel cat cod condor cow coyote crab crane cricket crow deer "
    "dingo dog dove duck eagle eel egret elk emu falcon ferret finch fox frog gecko goat goose grouse gull hare hawk "
    "heron hippo horse hyena ibex ibis jackal jay kite koala lark lemur lion lizard llama lynx mackerel magpie marten "
    "mink mole moose moth mouse mule newt orca oryx osprey otter owl ox panda parrot perch pigeon pony puffin puma "
    "quail rabbit raven robin salmon seal shark sheep shrew skunk skylark snail sparrow squid stork swan tapir tern "
    "tiger toad trout tuna turtle viper vole walrus wasp weasel whale wolf wombat wren yak zebra"
).split()


def generate(taken: Container[str]) -> str:
    """A name such as ``swift-otter`` that is not in `taken`."""
    for _ in range(100):
        name = f"{random.choice(_ADJECTIVES)}-{random.choice(_ANIMALS)}"
        if name not in taken:
            return name
    while True:
        numbered = f"{random.choice(_ADJECTIVES)}-{random.choice(_ANIMALS)}-{random.randrange(10**6)}"
        if numbered not in taken:
            return numbered
