// Package sql is what drivers of relational databases share: how a record becomes a row, how a schema is brought up to
// date, and, for those that are servers, all that a driver does but its statements, its connections and its commit. It
// speaks no SQL and knows no dialect; each database has a package of its own, with its statements, its connections and
// its clock.
//
// It imports storage, storage/cell, cart and the standard library, never a database's driver.
package sql
