-- Schema 4: whom HTTPS trusts, and the tokens by which others come to be trusted (name: the client's).
CREATE TABLE certificates (fingerprint TEXT PRIMARY KEY, doc TEXT NOT NULL) STRICT;

CREATE TABLE certificate_tokens (name TEXT PRIMARY KEY, doc TEXT NOT NULL) STRICT;
