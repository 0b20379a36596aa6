"""The database: every table, with what each column means, and how an older one becomes this one.

Conventions. Times are Unix seconds. A *number* is an inode number (63 bits, never reused) and is the name
by which tables speak of an object: it outlives the object's stay in the cache and the translation of a local
fid. A *volume key* is `realm id << 32 | volume id`. Fids are stored as (volume key, vnode, uniquifier).
Booleans are 0 and 1.

A create writes one row of `inode`, `object`, `page` and `log` and two of `log_object`. Each further index on
these tables costs every mutation a page in the write-ahead log (4 KiB, about 5 us), so indexes are partial
where they can be.

To change the schema append a script to `STEPS`; never edit one that has been released. The length of `STEPS`
is the schema version, kept in `PRAGMA user_version`; all missing steps run in one transaction at open.
"""

BASE = """
CREATE TABLE state (                 -- exactly one row
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    clean       INTEGER NOT NULL,    -- 1 only from a clean stop to the next start
    boot        TEXT NOT NULL,       -- kernel boot id of the last start: another one now means that what was
                                     -- never synced may be gone
    next_number INTEGER NOT NULL,    -- inode numbers from here on were never given out
    tick        INTEGER NOT NULL,    -- references counted so far (replacement), as of the last flush
    uuid        BLOB NOT NULL        -- 16 random bytes: who we are to servers, as long as the cache lives
);
INSERT INTO state VALUES (1, 1, '', 2, 1, randomblob(16));

CREATE TABLE realm (                 -- every realm ever reached; never deleted, so its id is never reused
    id          INTEGER PRIMARY KEY, -- 1, 2, ...
    name        TEXT NOT NULL UNIQUE,
    root_volume TEXT NOT NULL        -- name of the root volume; '' = not yet known
);

CREATE TABLE volume (
    key         INTEGER PRIMARY KEY, -- realm id << 32 | volume id
    name        TEXT NOT NULL,
    type        INTEGER NOT NULL,    -- the wire's volume type
    replicas    TEXT NOT NULL,       -- JSON [[slot, replica volume id, "address:port"], ...]
    stamps      TEXT NOT NULL,       -- JSON [stamp of slot 0, ...]; [] = none; 0 = invalid
    next_local  INTEGER NOT NULL,    -- uniquifiers of local fids from here on were never given out
    ranges      TEXT NOT NULL        -- JSON {object type: [[vnode, unique, stride, count]]}: granted fids.
                                     -- '{}' while the daemon runs, so that an unclean stop throws them away
);
CREATE INDEX volume_name ON volume (name);

CREATE TABLE inode (                 -- who a number is; outlives the object so that st_ino is stable
    number      INTEGER PRIMARY KEY, -- from 2 on; 1 is the root of the mount and has no row
    volume      INTEGER NOT NULL,    -- volume key
    vnode       INTEGER NOT NULL,
    uniquifier  INTEGER NOT NULL,
    past        INTEGER NOT NULL     -- 1 = an earlier incarnation: the fid has a newer number
);
CREATE UNIQUE INDEX inode_fid ON inode (volume, vnode, uniquifier) WHERE past = 0;

CREATE TABLE container (             -- files that something refers to: containers/xx/<hex id>
    id          INTEGER PRIMARY KEY,
    length      INTEGER NOT NULL,    -- size of the file; the disk must agree
    bytes       INTEGER NOT NULL,    -- of these, present: what counts against the limit
    present     BLOB,                -- NULL = all of it; else packed ranges (extents.py)
    writing     INTEGER NOT NULL,    -- 1 = modified since its last store record, or about to be
    logged      INTEGER NOT NULL,    -- 1 = a store record has referred to it: contents never change again
    synced      INTEGER NOT NULL     -- 1 = contents are on the disk, not only in the page cache
);
CREATE INDEX container_writing ON container (id) WHERE writing = 1;
CREATE INDEX container_unsynced ON container (id) WHERE synced = 0;

CREATE TABLE object (                -- one cached file, directory or symlink
    number      INTEGER PRIMARY KEY, -- its inode number
    parent      INTEGER NOT NULL,    -- number of the directory it was last found in; 0 = none known
    name        BLOB NOT NULL,       -- last component name
    status      BLOB,                -- vice Status, packed; NULL = a runt (no status yet)
    rights      BLOB NOT NULL,       -- packed (int32 uid, uint32 rights) pairs; uid -1 = any user
    link        BLOB,                -- text of a symlink or mount link; NULL = not here
    container   INTEGER,             -- contents of a file; NULL = not here
    previous    INTEGER,             -- while `container` is being written: what was there before
    sha         BLOB,                -- SHA-1 of the data as a server told it; NULL = unknown. May be stale
    flags       INTEGER NOT NULL,    -- objects.Flags
    mount       INTEGER NOT NULL,    -- of a mount link: number of the root mounted on it; else 0
    hoard       INTEGER NOT NULL,    -- hoard priority, 0..1000
    hoard_uid   INTEGER NOT NULL,    -- who gave it; -1 = nobody
    tick        INTEGER NOT NULL     -- when it was last referred to; 0 = never
);
CREATE INDEX object_parent ON object (parent);
CREATE INDEX object_container ON object (container) WHERE container IS NOT NULL;
CREATE INDEX object_previous ON object (previous) WHERE previous IS NOT NULL;
-- What may be replaced, lowest priority first within each hoard priority; the flags are objects.KEEP. A new
-- local object is dirty and so enters neither.
CREATE INDEX object_idle ON object (hoard, tick) WHERE flags & 7 = 0;
CREATE INDEX object_idle_data ON object (hoard, tick) WHERE container IS NOT NULL AND flags & 7 = 0;

CREATE TABLE page (                  -- directory contents in Vice form
    id          INTEGER PRIMARY KEY, -- number of the directory << 7 | page (a directory has at most 128)
    data        BLOB NOT NULL        -- 2048 bytes
);

CREATE TABLE log (                   -- the modify log: per volume, in order of sequence
    volume      INTEGER NOT NULL,    -- volume key
    sequence    INTEGER NOT NULL,    -- increasing over all volumes; a prepended one gets the lowest minus 1
    record      BLOB NOT NULL,       -- vice.log record, packed, without version vectors
    uid         INTEGER NOT NULL,    -- local author
    identity    TEXT NOT NULL,       -- whom it must be sent as, 'user@realm'; '' = not known
    time        INTEGER NOT NULL,    -- when logged
    container   INTEGER,             -- of a store: its contents, immutable
    length      INTEGER NOT NULL,    -- of a store: bytes of contents; else 0
    digest      BLOB,                -- of a store: SHA-256 of its contents; NULL = not yet known
    safe        INTEGER NOT NULL,    -- of a store: 1 = its contents are on the disk; else 1
    host        INTEGER NOT NULL,    -- store id, drawn when first frozen; 0.0 = none
    uniquifier  INTEGER NOT NULL,
    state       INTEGER NOT NULL,    -- log.State bits
    reason      INTEGER NOT NULL,    -- why it waits: a vice Code; 0 = no answer against it
    handle      BLOB,                -- of a store sent in fragments: venus' note of handle, server, offset
    about       BLOB NOT NULL,       -- the rows of log_object for it: packed (number, role) pairs
    PRIMARY KEY (volume, sequence)
) WITHOUT ROWID;
CREATE INDEX log_container ON log (container) WHERE container IS NOT NULL;
CREATE INDEX log_unsafe ON log (sequence) WHERE safe = 0;

CREATE TABLE log_object (            -- which records are about an object, the way from it
    number      INTEGER NOT NULL,    -- inode number
    sequence    INTEGER NOT NULL,
    volume      INTEGER NOT NULL,
    role        INTEGER NOT NULL,    -- log.Role bits: the object itself, or the directory it is entered in
    PRIMARY KEY (number, sequence, volume)
) WITHOUT ROWID;

CREATE TABLE recovered (             -- contents saved from a crash: never sent by themselves
    id          INTEGER PRIMARY KEY,
    container   INTEGER NOT NULL,
    number      INTEGER NOT NULL,    -- the object they were written to
    name        BLOB NOT NULL,       -- its last component name
    why         INTEGER NOT NULL,    -- recovery.Why
    time        INTEGER NOT NULL     -- when found
);
CREATE INDEX recovered_container ON recovered (container);
"""

HOARD = """
CREATE TABLE hoard (                 -- hoard database: what people said must be here
    id          INTEGER PRIMARY KEY,
    volume      INTEGER NOT NULL,    -- volume key
    path        BLOB NOT NULL,       -- from the root of the volume, 'a/b'; empty = the root itself
    uid         INTEGER NOT NULL,    -- local uid whose entry it is
    priority    INTEGER NOT NULL,    -- 1..1000
    expand      INTEGER NOT NULL,    -- hoard.Expand
    profile     TEXT NOT NULL,       -- profile it comes from; '' = added by a command
    bound       INTEGER NOT NULL,    -- inode number of the object it was last bound to; 0 = none yet
    made        INTEGER NOT NULL     -- when
);
CREATE UNIQUE INDEX hoard_place ON hoard (volume, path, profile);

CREATE TABLE hoard_profile (         -- profiles that are enabled
    name        TEXT PRIMARY KEY,
    uid         INTEGER NOT NULL     -- who enabled it: its entries are his
) WITHOUT ROWID;
"""

PROFILES = """
-- SHA-256 of the profile's text when its entries were made: a text that has not changed is not read again,
-- so that its entries may follow what they name when it is renamed.
ALTER TABLE hoard_profile ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
"""

WRITEBACK = """
CREATE TABLE writeback (             -- at most one row: when changes are sent, as a person has set it
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    age         REAL NOT NULL,       -- seconds that a record waits at least
    time        REAL NOT NULL        -- seconds that a batch may take
);
"""

IDENTITY = """
CREATE TABLE identity (              -- whom servers took a local user for when he last had a token, until he
                                     -- logs out: whose the rights are that are cached under his uid
    id          INTEGER PRIMARY KEY, -- increasing
    realm       INTEGER NOT NULL,    -- realm.id
    uid         INTEGER NOT NULL,
    vice_id     INTEGER NOT NULL,
    UNIQUE (realm, uid)
);
"""

INLINE = """
-- Contents of a small file that came whole: there is no file then. NULL = they are in a file.
ALTER TABLE container ADD COLUMN data BLOB;
"""

OWN_WRITEBACK = """
CREATE TABLE writeback_volume (      -- what was set for single volumes
    volume      INTEGER PRIMARY KEY, -- volume key
    age         REAL NOT NULL,       -- as in writeback
    time        REAL NOT NULL
);
ALTER TABLE writeback ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;  -- 1 = nothing is sent by itself
"""

STEPS: tuple[str, ...] = (BASE, HOARD, PROFILES, WRITEBACK, IDENTITY, INLINE, OWN_WRITEBACK)
