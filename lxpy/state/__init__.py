"""The store: SQLite, schema and migrations. Nobody else writes SQL."""
