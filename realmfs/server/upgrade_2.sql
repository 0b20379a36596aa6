-- From schema version 1 to 2, before schema_group.sql: servers have the time of their word, replicas may be at strangers.

ALTER TABLE server ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;

ALTER TABLE replica RENAME TO old_replica;
CREATE TABLE replica (
    group_id INTEGER NOT NULL,
    slot     INTEGER NOT NULL,
    id       INTEGER NOT NULL UNIQUE,
    server   INTEGER NOT NULL,
    PRIMARY KEY (group_id, slot)
) STRICT, WITHOUT ROWID;
INSERT INTO replica SELECT group_id, slot, id, server FROM old_replica;
DROP TABLE old_replica;
