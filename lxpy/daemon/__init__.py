"""The process ``lxpyd``: start-up, routes, operations, events, authentication, activation."""
