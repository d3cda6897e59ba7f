"""Probes of the host; they work with the daemon dead."""
