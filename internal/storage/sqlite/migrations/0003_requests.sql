-- needs 2
-- The changes that were made under idempotency keys; NULL: never set. A sidecar that knows nothing of them leaves them
-- as they are.
ALTER TABLE sidecart_carts ADD COLUMN requests BLOB;
ALTER TABLE sidecart_carts ADD COLUMN requests_version INTEGER NOT NULL DEFAULT 0;
