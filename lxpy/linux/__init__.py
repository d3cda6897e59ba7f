"""Thin typed wrappers of the kernel. They raise OSError(errno, path) and use kernel names."""
