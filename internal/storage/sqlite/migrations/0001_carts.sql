-- One row per cart, with all its parts, so that they change and expire together,
-- and with its locks. A name that has locks but no cart has a row whose id is NULL.
--
-- Names are compared byte by byte. Times are milliseconds since 1970, UTC. Documents
-- are text, since a number in them must stay as it was written; they come last, so
-- that what is read of a row without them is on its first page.
CREATE TABLE sidecart_carts (
    prefix             TEXT    NOT NULL COLLATE BINARY,
    identifier         TEXT    NOT NULL COLLATE BINARY,
    instance           TEXT    NOT NULL COLLATE BINARY,

    id                 TEXT,
    version            INTEGER NOT NULL,
    items_version      INTEGER NOT NULL,
    conditions_version INTEGER NOT NULL,
    created_at         INTEGER,
    updated_at         INTEGER,
    expires_at         INTEGER, -- NULL: never
    removable_at       INTEGER, -- when cart and locks have all ended; NULL: never
    locks              TEXT,    -- {"held": [...], "queue": [...]}; NULL: none
    metadata           TEXT,    -- {"entries": [...], "removed": {...}, "floor": n}; NULL: never set
    transfer           BLOB,
    received           BLOB,
    items              TEXT    NOT NULL,
    conditions         TEXT    NOT NULL,

    PRIMARY KEY (prefix, identifier, instance)
) STRICT;

CREATE INDEX sidecart_carts_removable ON sidecart_carts (removable_at) WHERE removable_at IS NOT NULL;
