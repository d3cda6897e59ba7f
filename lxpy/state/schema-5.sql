-- Schema 5. Snapshots of instances; they go with their instance.
CREATE TABLE instance_snapshots (
    instance INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (instance, name)
) STRICT;
