-- What a store has since there are groups of servers (schema version 2); the rest is in schema.sql.

-- All volumes of the realm, and what their roots start with: every server makes the same root.
CREATE TABLE location (
    group_id INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    created  INTEGER NOT NULL,
    owner    INTEGER NOT NULL,
    acl      BLOB NOT NULL,
    quota    INTEGER NOT NULL                      -- that replicas begin with; then it is the root's (vice.md 5.1)
) STRICT;

-- Of directories with several replicas: which change put an entry (or an attribute, "/acl") there, and what was taken away
-- (merge.py). A tomb stays until all replicas are known to have executed `batch`, or to be equal. `to` is the directory that
-- the child was moved to, 0 if a name was removed; the vector is the child's as it was.
CREATE TABLE stamp (
    volume     INTEGER NOT NULL,
    vnode      INTEGER NOT NULL,
    uniq       INTEGER NOT NULL,
    name       BLOB NOT NULL,
    host       INTEGER NOT NULL,
    uniquifier INTEGER NOT NULL,
    PRIMARY KEY (volume, vnode, uniq, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE tomb (
    volume        INTEGER NOT NULL,
    vnode         INTEGER NOT NULL,
    uniq          INTEGER NOT NULL,
    name          BLOB NOT NULL,
    child_vnode   INTEGER NOT NULL,
    child_unique  INTEGER NOT NULL,
    stamp_host    INTEGER NOT NULL,
    stamp_unique  INTEGER NOT NULL,
    op_host       INTEGER NOT NULL,
    op_unique     INTEGER NOT NULL,
    batch_host    INTEGER NOT NULL,
    batch_unique  INTEGER NOT NULL,
    to_vnode      INTEGER NOT NULL,
    to_unique     INTEGER NOT NULL,
    versions      BLOB NOT NULL,
    store_host    INTEGER NOT NULL,
    store_unique  INTEGER NOT NULL,
    PRIMARY KEY (volume, vnode, uniq, name, child_vnode, child_unique, stamp_host, stamp_unique)
) STRICT, WITHOUT ROWID;

-- Whatever changes what all servers share makes a new version of it.
INSERT INTO setting VALUES ('realm_version', 1);
CREATE TRIGGER location_insert AFTER INSERT ON location BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER location_update AFTER UPDATE ON location BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER location_delete AFTER DELETE ON location BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER replica_insert AFTER INSERT ON replica BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER replica_update AFTER UPDATE ON replica BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER replica_delete AFTER DELETE ON replica BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER principal_insert AFTER INSERT ON principal BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER principal_update AFTER UPDATE ON principal BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER principal_delete AFTER DELETE ON principal BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER member_insert AFTER INSERT ON member BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER member_update AFTER UPDATE ON member BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER member_delete AFTER DELETE ON member BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER password_insert AFTER INSERT ON password BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER password_update AFTER UPDATE ON password BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER password_delete AFTER DELETE ON password BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
CREATE TRIGGER key_insert AFTER INSERT ON setting WHEN NEW.name IN ('token_key', 'old_token_key')
    BEGIN UPDATE setting SET value = value + 1 WHERE name = 'realm_version'; END;
