package redis

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/cart"
)

func TestConfigValidate(t *testing.T) {
	for _, good := range []Config{
		{Addresses: []string{"redis:6379"}, Prefix: "cart"},
		{Addresses: []string{"/run/redis.sock"}, Prefix: "cart", Database: 3, Mode: Standalone},
		{Addresses: []string{"s1:26379", "s2:26379"}, Prefix: "cart", Mode: Sentinel, MasterName: "shop", Database: 1},
		{Addresses: []string{"[::1]:7000"}, Prefix: "cart", Mode: Cluster},
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, test := range []struct {
		config Config
		fields []string
	}{
		{Config{}, []string{"addresses", "keyPrefix"}},
		{Config{Addresses: []string{"a:1", "b:1"}, Prefix: "cart"}, []string{"addresses"}},
		{Config{Addresses: []string{"redis"}, Prefix: "cart"}, []string{"addresses"}},
		{Config{Addresses: []string{"/run/redis.sock"}, Prefix: "cart", Mode: Cluster}, []string{"addresses"}},
		{Config{Mode: Cluster, Prefix: "cart", Database: 1}, []string{"addresses", "database"}},
		{Config{Addresses: []string{"a:1"}, Mode: Sentinel, Prefix: "cart"}, []string{"masterName"}},
		{Config{Addresses: []string{"a:1"}, MasterName: "shop", Prefix: "cart"}, []string{"masterName"}},
		{Config{Addresses: []string{"a:1"}, Mode: "Ring", Prefix: "cart"}, []string{"mode"}},
		{Config{Addresses: []string{"a:1"}, Prefix: "lock", Database: -1, PoolSize: -1, ReadTimeout: -time.Second},
			[]string{"database", "keyPrefix", "poolSize", "timeouts.read"}},
	} {
		_, err := New(t.Context(), test.config)
		if got := invalidFields(err); !slices.Equal(got, test.fields) {
			t.Errorf("%+v: %v, want problems of %v", test.config, err, test.fields)
		}
	}
}

// invalidFields are the fields of all problems, sorted.
func invalidFields(err error) []string {
	var fields []string
	var walk func(error)
	walk = func(err error) {
		var one *cart.InvalidError
		var many interface{ Unwrap() []error }
		if errors.As(err, &many) {
			for _, e := range many.Unwrap() {
				walk(e)
			}
		} else if errors.As(err, &one) {
			fields = append(fields, one.Field)
		}
	}
	walk(err)
	slices.Sort(fields)
	return fields
}
