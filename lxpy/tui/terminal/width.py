"""How many columns a character takes: 0, 1 or 2, by Unicode's East Asian Width and general category."""

import re
import unicodedata

# Runs of these alone are one column each and combine with nothing; most text ends here.
NARROW = re.compile("[\x20-\x7e\xa0-\u02ff\u2010-\u2027\u2030-\u205e\u2190-\u2319\u2400-\u25fc]*\\Z")

_cache: dict[str, int] = {}


def width(character: str) -> int:
    """Columns of one character; 0 for what combines with the one before or cannot be seen."""
    found = _cache.get(character)
    if found is None:
        if len(_cache) > 20_000:
            _cache.clear()
        found = _cache[character] = _width(character)
    return found


def _width(character: str) -> int:
    code = ord(character)
    if 0x1160 <= code <= 0x11FF:  # Hangul vowels and finals join the syllable before
        return 0
    category = unicodedata.category(character)
    if category in ("Mn", "Me") or (category == "Cf" and code != 0xAD):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
