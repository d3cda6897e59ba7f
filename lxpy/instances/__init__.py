"""The instance manager: configuration, life cycle, state."""
