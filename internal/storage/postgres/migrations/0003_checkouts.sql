-- needs 1
-- The lines of checkouts. Such a line has the part checkout, the version of the snapshot,
-- and the kind checked out, ordered or cancelled.
ALTER TABLE sidecart_audit
    ADD COLUMN IF NOT EXISTS checkout_id text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS attributes  text; -- those of the checkout, as JSON
