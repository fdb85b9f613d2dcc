-- One row per cart, with all its parts, so that they change and expire together,
-- and with its locks. A name that has locks but no cart has a row whose id is NULL.
--
-- Names are compared byte by byte. Times are milliseconds since 1970, UTC. Documents
-- are text, since a number in them must stay as it was written. The pages have room
-- for a second version of a row, so that a commit need not write to the indexes.
CREATE TABLE sidecart_carts (
    prefix             text   COLLATE "C" NOT NULL,
    identifier         text   COLLATE "C" NOT NULL,
    instance           text   COLLATE "C" NOT NULL,

    id                 text,
    version            bigint NOT NULL,
    items_version      bigint NOT NULL,
    conditions_version bigint NOT NULL,
    created_at         bigint,
    updated_at         bigint,
    expires_at         bigint, -- NULL: never
    removable_at       bigint, -- up to an hour after cart and locks have all ended; NULL: never
    locks              text,   -- {"held": [...], "queue": [...]}; NULL: none
    metadata           text,   -- {"entries": [...], "removed": {...}, "floor": n}; NULL: never set
    transfer           bytea,
    received           bytea,
    ledger             bytea,  -- what the cart keeps account of, such as its last requests; NULL: never set
    ledger_version     bigint NOT NULL DEFAULT 0,
    items              text   NOT NULL,
    conditions         text   NOT NULL,

    PRIMARY KEY (prefix, identifier, instance)
) WITH (fillfactor = 70);

-- Locks are short-lived: to compress a long queue would cost more than it spares.
ALTER TABLE sidecart_carts ALTER COLUMN locks SET STORAGE EXTERNAL;

CREATE INDEX sidecart_carts_removable ON sidecart_carts (removable_at) WHERE removable_at IS NOT NULL;

-- The fences of leases, of all carts of all prefixes. They outlive every cart and every
-- flush. They do not follow the clock, which may be wrong; only the first is the time, in
-- microseconds, so that the fences of a database that was lost and made anew do not begin again.
CREATE SEQUENCE IF NOT EXISTS sidecart_fences AS bigint;

SELECT setval('sidecart_fences', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
