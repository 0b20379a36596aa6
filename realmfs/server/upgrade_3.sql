-- Since schema version 3.

-- Of files and symbolic links with several replicas: the store ids of versions that the present one was made from, or the last one
-- if the object was removed; oldest first. Who has one of them has an older version, whatever the vectors say (resolver.py).
-- Forgotten when all replicas have executed an update.
CREATE TABLE past (
    number     INTEGER PRIMARY KEY,
    volume     INTEGER NOT NULL,
    vnode      INTEGER NOT NULL,
    uniq       INTEGER NOT NULL,
    host       INTEGER NOT NULL,
    uniquifier INTEGER NOT NULL,
    UNIQUE (volume, vnode, uniq, host, uniquifier)
) STRICT;

PRAGMA user_version = 3;
