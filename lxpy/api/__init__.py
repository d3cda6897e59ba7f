"""The wire: objects of the REST API, errors, extensions, value syntax. No I/O."""
