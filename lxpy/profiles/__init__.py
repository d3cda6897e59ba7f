"""Profiles: named configuration and devices that instances share."""
