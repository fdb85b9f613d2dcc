-- needs 1
-- Who changed which part of which cart, from which version to which, when, and by which
-- call. The lines of a change are written in its transaction, by sidecars that keep an
-- audit trail; others do not touch this table.
--
-- Names are compared byte by byte. part is items, conditions or metadata.KEY with
-- the versions of that part, or * with the versions of a whole cart that came or went.
-- Version 0 is: never set, or not there.
CREATE TABLE IF NOT EXISTS sidecart_audit (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL,
    prefix       text        COLLATE "C" NOT NULL,
    identifier   text        COLLATE "C" NOT NULL,
    instance     text        COLLATE "C" NOT NULL,
    cart_id      text        NOT NULL,
    part         text        COLLATE "C" NOT NULL,
    from_version bigint      NOT NULL,
    to_version   bigint      NOT NULL,
    kind         text        NOT NULL, -- altered, forgotten, swapped, merged, moved, flushed
    call_name    text        NOT NULL,
    who          text        NOT NULL  -- the sidecar: its pod and process
);

-- What happened to a cart.
CREATE INDEX IF NOT EXISTS sidecart_audit_cart ON sidecart_audit (prefix, identifier, instance, at);

-- What is old enough to go.
CREATE INDEX IF NOT EXISTS sidecart_audit_at ON sidecart_audit (prefix, at);
