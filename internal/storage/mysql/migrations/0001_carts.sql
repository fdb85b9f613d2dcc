-- One row per cart, with all its parts, so that they change and expire together,
-- and with its locks. A name that has locks but no cart has a row whose id is NULL.
--
-- Names are bytes, since collations that see capitals and trailing blanks differ from
-- server to server. Times are milliseconds since 1970, UTC. Documents are text,
-- since a number in them must stay as it was written. Statements that make something
-- can be run again: a migration that broke off is not undone here.
CREATE TABLE IF NOT EXISTS sidecart_carts (
    prefix             varbinary(255) NOT NULL,
    identifier         varbinary(255) NOT NULL,
    instance           varbinary(255) NOT NULL,

    id                 varchar(64),
    version            bigint NOT NULL,
    items_version      bigint NOT NULL,
    conditions_version bigint NOT NULL,
    created_at         bigint,
    updated_at         bigint,
    expires_at         bigint, -- NULL: never
    removable_at       bigint, -- up to an hour after cart and locks have all ended; NULL: never
    locks              longtext, -- {"held": [...], "queue": [...]}; NULL: none
    metadata           longtext, -- {"entries": [...], "removed": {...}, "floor": n}; NULL: never set
    transfer           longblob,
    received           longblob,
    ledger             blob,   -- what the cart keeps account of, such as its last requests; NULL: never set
    ledger_version     bigint NOT NULL DEFAULT 0,
    items              longtext NOT NULL,
    conditions         longtext NOT NULL,

    PRIMARY KEY (prefix, identifier, instance),
    KEY sidecart_carts_removable (removable_at)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The counter of the fences of leases, of all carts of all prefixes. It has no rows: a
-- fence is the number that a row would have been given, which outlives every cart, every flush and every restart. It
-- does not follow the clock, which may be wrong; only the first is the time, in microseconds, so that the fences of a
-- database that was lost and made anew do not begin again.
CREATE TABLE IF NOT EXISTS sidecart_fences (
    id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY
) ENGINE = InnoDB;
