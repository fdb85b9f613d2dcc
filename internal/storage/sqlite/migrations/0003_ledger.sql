-- needs 2
-- What the cart keeps account of beside its documents, such as its last requests; NULL: never set. A sidecar that knows
-- nothing of it leaves it as it is.
ALTER TABLE sidecart_carts ADD COLUMN ledger BLOB;
ALTER TABLE sidecart_carts ADD COLUMN ledger_version INTEGER NOT NULL DEFAULT 0;
