-- The last fence that a lease was given, of all carts of all prefixes. It outlives every
-- cart and every flush, and is raised in the transaction that grants the lease. It does not
-- follow the clock, which may be wrong; only its first value is the time, in microseconds, so that
-- the fences of a file that was lost and made anew do not begin again.
CREATE TABLE sidecart_fences (
    id   INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    last INTEGER NOT NULL
) STRICT;

INSERT INTO sidecart_fences (id, last) VALUES (1, unixepoch() * 1000000);
