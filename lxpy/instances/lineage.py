"""What an instance and each of its snapshots goes on from: the key ``volatile.base_snapshot``, which is ours.

A snapshot that is taken becomes the instance's base, and so does one that is restored. A snapshot keeps the
configuration that the instance had before it was taken, and with it the base of its own: together they are a tree, with
a branch wherever somebody has restored one and gone on from there. LXD knows the times only.
"""

from lxpy.api.objects import Config

BASE = "volatile.base_snapshot"


def base(config: Config) -> str:
    """The name of the snapshot that a configuration goes on from; "" for none, or none that is known."""
    return config.get(BASE, "")


def rebased(config: Config, old: str, new: str) -> Config | None:
    """A configuration that goes on from `new` ("": none) instead of `old`; None where it did not go on from that."""
    if config.get(BASE) != old:
        return None
    rest = {key: value for key, value in config.items() if key != BASE}
    return rest | ({BASE: new} if new else {})
