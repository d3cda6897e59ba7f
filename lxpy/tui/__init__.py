"""The full-screen app: what `lxpy` shows on a terminal. It talks to the daemon through `lxpy.client` alone."""
