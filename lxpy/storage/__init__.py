"""The storage manager: pools and their drivers."""
