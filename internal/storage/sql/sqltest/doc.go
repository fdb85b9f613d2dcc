// Package sqltest is what the stores of database servers must stand beyond the conformance suite: servers that crash,
// freeze and refuse, connections that end in the middle of a change, answers that get lost, schemas of other versions.
//
// It imports storage with cell, sql and storagetest, cart, testserver and testing. Only tests import it.
package sqltest
