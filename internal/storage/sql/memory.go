package sql

// What a connection of SQLite takes at most with carts of the default limits, measured. It is
// outside of Go's heap and not given back: the writer binds whole documents and keeps the
// pages of a transaction, a reader has little more than its page cache of 2 MiB.
const (
	writerMemory = 12 << 20
	readerMemory = 5 << 20
)

// largeRow is from where a row is large.
const largeRow = 256 << 10

// tidy drops the page cache after a row of size bytes was read, if that is a large one. The
// pages of cache would lie between the buffers of large rows, so that no hole is large enough for the
// next one: a connection that has read a few dozen carts of 2 MiB would have 45 MiB.
func (c *connection) tidy(size int) {
	if size > largeRow {
		_ = c.Exec(`PRAGMA shrink_memory`) // which only spares memory
	}
}

// OutsideHeap is how much memory, in bytes, the store takes that Go's collector does not know of.
func (s *Store) OutsideHeap() int64 {
	if e, ok := s.engine.(*sqlite); ok {
		return writerMemory + int64(cap(e.readers))*readerMemory
	}
	return 0
}
