-- Schema 2. Custom storage volumes and their snapshots; a snapshot goes with its volume.
CREATE TABLE volumes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pool TEXT NOT NULL REFERENCES pools (name),
    project TEXT NOT NULL REFERENCES projects (name),
    name TEXT NOT NULL,
    doc TEXT NOT NULL,
    UNIQUE (pool, project, name)
) STRICT;

CREATE TABLE volume_snapshots (
    volume INTEGER NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (volume, name)
) STRICT;
