"""The command line: one module per command group. Parse, call the client, render; nothing else."""
