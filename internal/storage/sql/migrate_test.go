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
	version int
	applied []string
}

func (n *noted) Version() (int, error) { return n.version, nil }

func (n *noted) Apply(version int, statements string) error {
	if statements == "bad" {
		return errors.New("no such table")
	}
	n.applied = append(n.applied, fmt.Sprint(version, " ", statements))
	return nil
}

func TestMigrate(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	files := fstest.MapFS{"0001_a.sql": file("one"), "0002_b.sql": file("two"), "0003_c.sql": file("three"), "README": file("no")}
	for version, want := range [][]string{{"1 one", "2 two", "3 three"}, {"2 two", "3 three"}, {"3 three"}, nil} {
		s := &noted{version: version}
		if err := Migrate(s, files); err != nil || !slices.Equal(s.applied, want) {
			t.Errorf("from version %d: %q, %v", version, s.applied, err)
		}
	}
	s := &noted{version: 4}
	if err := Migrate(s, files); !errors.Is(err, storage.ErrUnsupported) || !strings.Contains(err.Error(), "version 4") || s.applied != nil {
		t.Errorf("a newer schema: %v", err)
	}
	files["0002_b.sql"] = file("bad")
	s = &noted{}
	if err := Migrate(s, files); err == nil || !strings.Contains(err.Error(), "migration 2: no such table") || len(s.applied) != 1 {
		t.Errorf("a migration that fails: %v, after %q", err, s.applied)
	}
}
