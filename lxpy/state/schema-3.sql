-- Schema 3: network ACLs; the document has description, config, ingress and egress rules.
CREATE TABLE network_acls (name TEXT PRIMARY KEY, doc TEXT NOT NULL) STRICT;
