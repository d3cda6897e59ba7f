"""The panes of the main screen: one module per kind of object, and the detail area."""
