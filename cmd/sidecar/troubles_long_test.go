//go:build long

package main

// troubled are the backends whose troubles TestTroubles brings about; without the build tag long, one of each sort.
var troubled = []string{"Redis", "PostgreSQL", "MySQL", "DynamoDB", "Memcached", "SQLite", "File"}
