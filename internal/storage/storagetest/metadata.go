package storagetest

import (
	"fmt"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

func testMetadataOrder(s *subject) {
	s.put(key, metadata("zebra", `1`), metadata("apple", `2`))
	s.put(key, metadata("mango", `3`))
	s.put(key, metadata("zebra", `4`))
	s.is("set again in place", s.load(key), content{
		Version: 3, Metadata: []entry{{"zebra", `4`, 3}, {"apple", `2`, 1}, {"mango", `3`, 2}},
	})
	s.put(key, removed("zebra"))
	got := s.put(key, metadata("zebra", `5`))
	s.is("removed and set again comes last", got, content{
		Version: 5, Metadata: []entry{{"apple", `2`, 1}, {"mango", `3`, 2}, {"zebra", `5`, 5}},
	})
	both := change(key, got, removed("apple"), metadata("apple", `6`), metadata("fig", `7`), removed("fig"), metadata("fig", `8`), metadata("date", `9`))
	both.Change.Steps = 3
	for i, step := range []uint64{1, 2, 1, 2, 3, 3} {
		both.Change.Writes[i].Step = step
	}
	s.commit(storage.Committed, both)
	got = s.load(key)
	s.is("removed and set again in one commit", got, content{
		Version: 8, Metadata: []entry{{"mango", `3`, 2}, {"zebra", `5`, 5}, {"apple", `6`, 7}, {"fig", `8`, 8}, {"date", `9`, 8}},
	})
	if len(got.Removed) > 0 {
		s.Errorf("tombstones %v of keys that are there", got.Removed)
	}
	s.put(key, removed("apple"), removed("mango"), removed("zebra"), removed("fig"), removed("date"))
	s.is("all removed", s.load(key), content{Version: 9})
}

func testMetadataTombstones(s *subject) {
	part := cart.PartMetadata("m")
	s.put(key, metadata("m", `1`))
	s.put(key, removed("m"))
	got := s.put(key, items(`{"a":1}`))
	if v, version := got.MetadataValue("m"); v != nil || version != 2 {
		s.Fatalf("removed at 2, reads %q at %d", v, version)
	}
	for _, stale := range []uint64{0, 1} {
		c := change(key, got, metadata("m", `2`))
		c.Expect = storage.Expect{ID: got.ID, Parts: map[cart.Part]uint64{part: stale}}
		s.commit(storage.Conflict, c)
	}
	if _, version := s.put(key, metadata("m", `2`)).MetadataValue("m"); version != 4 {
		s.Fatalf("set again at 4, reads version %d", version)
	}

	// More removals than tombstones are kept: the floor takes over.
	const many = 2*cart.MaxTombstones + 10
	var sets, removals []storage.Write
	for i := range many {
		sets = append(sets, metadata(fmt.Sprint("k", i), `1`))
		removals = append(removals, storage.Write{Part: cart.PartMetadata(fmt.Sprint("k", i)), Step: uint64(i + 1)})
	}
	base := s.put(key, sets...)
	c := change(key, base, removals...)
	c.Change.Steps = many
	s.commit(storage.Committed, c)
	got = s.load(key)
	s.is("after many removals", got, content{
		Version: base.Version + many, Items: `{"a":1}`, ItemsVersion: 3, Metadata: []entry{{"m", `2`, 4}},
	})
	if len(got.Removed) > cart.MaxTombstones || got.Floor == 0 || got.Floor > got.Version {
		s.Fatalf("%d tombstones, floor %d at version %d", len(got.Removed), got.Floor, got.Version)
	}
	for i := range many {
		key := fmt.Sprint("k", i)
		if v, version := got.MetadataValue(key); v != nil || version < base.Version+uint64(i)+1 || version > got.Version {
			s.Fatalf("%s removed at %d, reads %q at %d", key, base.Version+uint64(i)+1, v, version)
		}
	}
	for i := range many { // what Load says is what Expect takes
		part := cart.PartMetadata(fmt.Sprint("k", i))
		c := check(key, got, part)
		c.Expect.Parts = map[cart.Part]uint64{part: got.PartVersion(part)}
		s.commit(storage.Committed, c)
		c.Expect.Parts[part] = base.Version
		s.commit(storage.Conflict, c)
	}
	now := s.put(key, metadata("k0", `2`))
	if _, version := now.MetadataValue("k0"); version != now.Version {
		s.Errorf("k0 set at %d, reads version %d", now.Version, version)
	}
}
