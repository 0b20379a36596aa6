-- The store of one file server: everything but the bytes of files, which lie in container files beside it.
--
-- WAL mode. A call that changes anything commits one transaction and syncs the WAL before it is answered; the containers
-- it refers to are synced before the commit. So at any crash the store is as after some prefix of the answered calls, plus
-- possibly the one that was being answered; container files that no row names are removed at the next start.
--
-- Ids, version vectors, rights and times are the protocol's own (vice.md §1); integers are unsigned words unless said
-- otherwise. A volume is named here by its replica id; group ids (0x7f......) are translated on the way in.

PRAGMA user_version = 2;

-- realm: its name; number: of this server, the high byte of the ids it makes; token_key and old_token_key: 8 bytes each,
-- what tokens are sealed with now and were before the last change (auth.md §4.4); realm_version: counts changes of what all
-- servers of the realm share (location, replica, principal, member, password, keys), see realmdb.py.
CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- The file servers of the realm. `address` is what clients are told: dotted IPv4, reachable, and the source of callbacks.
CREATE TABLE server (
    number  INTEGER PRIMARY KEY,
    address TEXT NOT NULL,
    port    INTEGER NOT NULL,
    stamp   INTEGER NOT NULL DEFAULT 0             -- Unix time when the server said so itself: the newest counts
) STRICT;

-- Replicas of volumes that this server holds.
CREATE TABLE volume (
    id              INTEGER PRIMARY KEY,           -- of the replica
    group_id        INTEGER NOT NULL UNIQUE,       -- of the replicated volume
    name            TEXT NOT NULL UNIQUE,          -- of the replicated volume; the replica's is "<name>.<slot>"
    slot            INTEGER NOT NULL,              -- this replica's index in version vectors
    versions        BLOB NOT NULL,                 -- volume version vector, 8 words; the own slot is the volume's stamp
    next_unique     INTEGER NOT NULL,              -- first unique that was neither handed out nor seen
    next_file       INTEGER NOT NULL,              -- same for the slots of files: vnode = 2 * slot + 2
    next_directory  INTEGER NOT NULL,              -- and of directories: vnode = 2 * slot + 1
    blocks          INTEGER NOT NULL,              -- in use, 1 KiB each
    min_quota       INTEGER NOT NULL,
    max_quota       INTEGER NOT NULL,              -- 0 = none
    created         INTEGER NOT NULL,
    offline_message BLOB NOT NULL,
    motd            BLOB NOT NULL,
    filling         INTEGER NOT NULL               -- 1 while an import runs: off line, and worthless if found at a start;
                                                   -- 2 while other servers fill it: off line for clients (catchup.py)
) STRICT;

-- All replicas of all volumes of the realm, wherever they are.
CREATE TABLE replica (
    group_id INTEGER NOT NULL,
    slot     INTEGER NOT NULL,
    id       INTEGER NOT NULL UNIQUE,
    server   INTEGER NOT NULL,
    PRIMARY KEY (group_id, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE vnode (
    volume        INTEGER NOT NULL,
    vnode         INTEGER NOT NULL,
    uniq          INTEGER NOT NULL,
    type          INTEGER NOT NULL,                -- 1 file, 2 directory, 3 symbolic link
    links         INTEGER NOT NULL,
    length        INTEGER NOT NULL,                -- bytes; of a directory its image's
    data_version  INTEGER NOT NULL,
    versions      BLOB NOT NULL,                   -- 8 words
    store_host    INTEGER NOT NULL,
    store_unique  INTEGER NOT NULL,
    flags         INTEGER NOT NULL,                -- of the version vector
    mtime         INTEGER NOT NULL,
    author        INTEGER NOT NULL,
    owner         INTEGER NOT NULL,
    mode          INTEGER NOT NULL,
    parent_vnode  INTEGER NOT NULL,                -- 0 of a volume root
    parent_unique INTEGER NOT NULL,
    container     INTEGER,                         -- a file's bytes; NULL = none
    sha           BLOB,                            -- SHA-1 of these bytes; NULL = not known
    target        BLOB,                            -- a symbolic link's contents
    acl           BLOB,                            -- a directory's access list (access.py)
    PRIMARY KEY (volume, vnode, uniq)
) STRICT, WITHOUT ROWID;

-- What ViceCOP2 looks for: objects whose last update still waits for its second phase.
CREATE INDEX pending ON vnode (store_host, store_unique) WHERE flags & 8;

-- The images of directories, 2048 bytes a page, as clients fetch them (directories.md §1).
CREATE TABLE page (
    volume INTEGER NOT NULL,
    vnode  INTEGER NOT NULL,
    uniq   INTEGER NOT NULL,
    number INTEGER NOT NULL,
    bytes  BLOB NOT NULL,
    PRIMARY KEY (volume, vnode, uniq, number)
) STRICT;

-- The last record that each client instance got reintegrated: what is not newer was done before (reintegration.md §2.6).
CREATE TABLE reintegrated (
    volume     INTEGER NOT NULL,
    host       INTEGER NOT NULL,                   -- HostId of the client's store ids
    uniquifier INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (volume, host)
) STRICT, WITHOUT ROWID;

-- Users have positive ids, groups negative ones; groups may be members of groups.
CREATE TABLE principal (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE,
    owner INTEGER NOT NULL
) STRICT;

CREATE TABLE member (
    group_id INTEGER NOT NULL REFERENCES principal (id) ON DELETE CASCADE,
    id       INTEGER NOT NULL REFERENCES principal (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, id)
) STRICT, WITHOUT ROWID;

-- The protocol needs the key itself, so it cannot be kept hashed: who reads this table is everybody (auth.md §9), unless the
-- keys are sealed (seal.py).
CREATE TABLE password (
    id  INTEGER PRIMARY KEY REFERENCES principal (id) ON DELETE CASCADE,
    key BLOB NOT NULL                              -- 8 bytes, or sealed
) STRICT;
