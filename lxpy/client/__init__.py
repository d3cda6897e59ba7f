"""The client library: Unix socket and HTTPS, operations, events, exec."""
