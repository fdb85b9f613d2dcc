// Package sql is what drivers of relational databases share: how a record becomes a row, and how a schema is brought up
// to date. For database servers it is the whole driver except statements, connections and commit. It contains no SQL
// and no dialect. Each database has its own package, with its statements, its connections and its clock.
//
// It imports storage, storage/cell, cart and the standard library, never a database's driver.
package sql
