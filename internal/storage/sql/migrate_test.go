package sql

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/sidecart/sidecart/internal/storage"
)

// noted is a schema that notes what is applied to it.
type noted struct {
	version, needs int
	applied        []string
}

func (n *noted) Version() (int, int, error) { return n.version, n.needs, nil }

func (n *noted) Apply(version, needs int, statements string) error {
	if statements == "bad" {
		return errors.New("no such table")
	}
	n.needs = needs
	n.applied = append(n.applied, fmt.Sprint(version, " ", statements))
	return nil
}

func TestMigrate(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	files := fstest.MapFS{"migrations/0001_a.sql": file("one"), "migrations/0002_b.sql": file("two"), "migrations/0003_c.sql": file("three"), "migrations/README": file("no")}
	for version, want := range [][]string{{"1 one", "2 two", "3 three"}, {"2 two", "3 three"}, {"3 three"}, nil} {
		s := &noted{version: version, needs: version}
		if err := Migrate(s, files); err != nil || !slices.Equal(s.applied, want) {
			t.Errorf("from version %d: %q, %v", version, s.applied, err)
		}
	}
	s := &noted{version: 4, needs: 4}
	if err := Migrate(s, files); !errors.Is(err, storage.ErrUnsupported) || !strings.Contains(err.Error(), "version 4") || s.applied != nil {
		t.Errorf("a newer schema: %v", err)
	}
	s = &noted{version: 4, needs: 3}
	if err := Migrate(s, files); err != nil || s.applied != nil {
		t.Errorf("a newer schema that needs no more than is known: %v, after %q", err, s.applied)
	}
	files["migrations/0003_c.sql"] = file("-- needs 1\nthree")
	for version, want := range map[int]int{0: 1, 2: 1, 3: 3} { // the last is applied already
		s = &noted{version: version, needs: version}
		if err := Migrate(s, files); err != nil || s.needs != want {
			t.Errorf("from version %d it needs %d, want %d: %v", version, s.needs, want, err)
		}
	}
	files["migrations/0002_b.sql"] = file("bad")
	s = &noted{}
	if err := Migrate(s, files); err == nil || !strings.Contains(err.Error(), "migration 2: no such table") || len(s.applied) != 1 {
		t.Errorf("a migration that fails: %v, after %q", err, s.applied)
	}
}
