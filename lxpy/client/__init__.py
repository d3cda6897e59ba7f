"""The client library: Unix socket and HTTPS, operations, events, exec. Fast to import: nothing happens here."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.client.client import Client


def connect(remote: str = "") -> "Client":
    """A client for a remote ("" is the default one); see `lxpy.client.client.connect`."""
    from lxpy.client import client

    return client.connect(remote)
