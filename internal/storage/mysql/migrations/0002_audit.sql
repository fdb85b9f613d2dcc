-- needs 1
-- Who changed which part of which cart, from which version to which, when, and by which
-- call. The lines of a change are written in its transaction, by sidecars that keep an
-- audit trail; others do not touch this table.
--
-- Names are bytes, as in sidecart_carts, and times UTC. part is items, conditions or
-- metadata.KEY with the versions of that part, or * with the versions of a whole cart that
-- came or went. Version 0 is: never set, or not there.
CREATE TABLE IF NOT EXISTS sidecart_audit (
    id           bigint         NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at           datetime(6)    NOT NULL,
    prefix       varbinary(255) NOT NULL,
    identifier   varbinary(255) NOT NULL,
    instance     varbinary(255) NOT NULL,
    cart_id      varchar(64)    NOT NULL,
    part         varbinary(320) NOT NULL,
    from_version bigint         NOT NULL,
    to_version   bigint         NOT NULL,
    kind         varchar(32)    NOT NULL, -- altered, forgotten, swapped, merged, moved, flushed
    call_name    varchar(255)   NOT NULL,
    who          varchar(320)   NOT NULL, -- the sidecar: its pod and process

    KEY sidecart_audit_cart (prefix, identifier, instance, at), -- what happened to a cart
    KEY sidecart_audit_at (prefix, at) -- what is old enough to go
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
