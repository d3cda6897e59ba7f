"""What the keys of pools and custom volumes are for, for ``GET /1.0/metadata/configuration``; the rules are in
`drivers` and `volumekeys`."""

from lxpy.api.keytexts import Key
from lxpy.storage.drivers import DRIVERS

_POOL = {
    "source": Key("string", "The file, disk or directory it lies in; cannot be changed", "one of lxpy's own"),
    "size": Key("string", "Of the file it lies in: 20GiB; it grows at once, and never shrinks"),
    "source.wipe": Key("bool", "When the pool is made: overwrite what is on the disk", "false"),
    "btrfs.mount_options": Key("string", "As in mount -o; acts at once", "user_subvol_rm_allowed"),
}  # fmt: skip
VOLUME = {
    "security.shifted": Key("bool", "Owners always go through the id map", "true", ("true",)),
    "size": Key("string", "What it may hold: 10GiB; acts at once", "no limit"),
    "snapshots.expiry": Key("string", "How long new snapshots are kept: 1H 2d 3w 4m 5y", "for ever"),
    "snapshots.pattern": Key("string", "Names of snapshots: %d, {{ creation_date }}", "snap%d"),
    "snapshots.schedule": Key("string", "When snapshots are made: cron's five fields, or @hourly, @daily …"),
    "snapshots.schedules.NAME": Key("string", "A further schedule with a name; .expiry, .keep and .pattern go with it"),
    "user.NAME": Key("string", "Yours: only kept"),
}  # fmt: skip


def pool(driver: str) -> dict[str, Key]:
    """The keys of a driver's pools."""
    kind = DRIVERS[driver]
    inner = {
        f"volume.{name}": key._replace(text=f"For new volumes: {key.text}")
        for name, key in VOLUME.items()
        if name.startswith("snapshots.") or (name == "size" and kind.keeps_sizes)
    }
    return {name: _POOL[name] for name in kind.keys} | inner | {"user.NAME": VOLUME["user.NAME"]}


def volume(driver: str) -> dict[str, Key]:
    """The keys of custom volumes in a driver's pools."""
    return {name: key for name, key in VOLUME.items() if name != "size" or DRIVERS[driver].keeps_sizes}
