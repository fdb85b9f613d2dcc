package storage_test

import (
	"regexp"
	"testing"

	"github.com/sidecart/sidecart/internal/storage"
)

// TestRandom: tokens have the form of bsm/redislock, ids that of a version 4 UUID, and no two are the same.
func TestRandom(t *testing.T) {
	for name, test := range map[string]struct {
		make func() string
		form string
	}{
		"token": {storage.NewToken, `^[A-Za-z0-9_-]{21}[AQgw]$`},
		"id":    {storage.NewID, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`},
	} {
		form, seen := regexp.MustCompile(test.form), map[string]bool{}
		for range 1000 {
			s := test.make()
			if !form.MatchString(s) || seen[s] {
				t.Fatalf("%s %q, seen before: %t", name, s, seen[s])
			}
			seen[s] = true
		}
	}
}
