"""Messages between the daemon and its helpers."""

from lxpy.runtime import wire


def test_the_last_words_of_one_who_left_something_unread() -> None:
    """A supervisor whose start has failed says why and goes, whatever the daemon has sent it meanwhile."""
    ours, theirs = wire.pair()
    with ours:
        assert wire.send(ours, {"op": "unread"})
        assert wire.send(theirs, {"event": "failed", "error": "why"})
        theirs.close()
        assert wire.receive(ours) == ({"event": "failed", "error": "why"}, [])
        assert wire.receive(ours) == (None, [])
        assert not wire.send(ours, {"op": "nobody is there"})
