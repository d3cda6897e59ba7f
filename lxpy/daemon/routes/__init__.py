"""One module per object kind of the REST API; each has ``ROUTES``, a table of method, path, handler."""
