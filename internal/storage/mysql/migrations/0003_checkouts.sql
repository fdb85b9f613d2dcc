-- needs 1
-- The lines of checkouts. Such a line has the part checkout, the version of the snapshot,
-- and the kind checked out, ordered or cancelled. attributes are those of the checkout, as
-- JSON.
--
-- MySQL has no ADD COLUMN IF NOT EXISTS, and a sidecar that dies before it has noted the
-- migration leaves it to be made again.
SET @sidecart = (
    SELECT IF(COUNT(*) = 0,
        'ALTER TABLE sidecart_audit
            ADD COLUMN checkout_id varbinary(255) NOT NULL DEFAULT '''',
            ADD COLUMN attributes  text           NULL',
        'DO 0')
    FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'sidecart_audit' AND column_name = 'checkout_id'
);
PREPARE sidecart FROM @sidecart;
EXECUTE sidecart;
DEALLOCATE PREPARE sidecart;
