"""lxpy: LXD-style system containers. Nothing is imported here: every command pays for this file."""

__version__ = "0.1.0"
