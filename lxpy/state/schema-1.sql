-- Schema 1. Identity lies in columns, documents (configuration, devices, properties) as JSON text.
CREATE TABLE server_config (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE projects (name TEXT PRIMARY KEY, doc TEXT NOT NULL) STRICT;

CREATE TABLE profiles (
    project TEXT NOT NULL REFERENCES projects (name),
    name TEXT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (project, name)
) STRICT;

CREATE TABLE pools (name TEXT PRIMARY KEY, doc TEXT NOT NULL) STRICT;

CREATE TABLE networks (name TEXT PRIMARY KEY, doc TEXT NOT NULL) STRICT;

CREATE TABLE instances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL REFERENCES projects (name),
    name TEXT NOT NULL,
    pool TEXT NOT NULL REFERENCES pools (name),
    idmap_base INTEGER UNIQUE, -- first host id of this instance's own map; NULL: privileged
    doc TEXT NOT NULL,
    UNIQUE (project, name)
) STRICT;

CREATE TABLE images (
    project TEXT NOT NULL REFERENCES projects (name),
    fingerprint TEXT NOT NULL,
    doc TEXT NOT NULL,
    PRIMARY KEY (project, fingerprint)
) STRICT;

CREATE TABLE image_aliases (
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (project, name),
    FOREIGN KEY (project, fingerprint) REFERENCES images (project, fingerprint) ON DELETE CASCADE
) STRICT;

CREATE TABLE warnings (uuid TEXT PRIMARY KEY, doc TEXT NOT NULL) STRICT;
