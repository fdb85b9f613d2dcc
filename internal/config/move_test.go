package config_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sidecart/sidecart/internal/config"
)

func TestMoveFrom(t *testing.T) {
	const head = "apiVersion: sidecar.sidecart.dev/v1alpha1\nkind: SidecarConfig\nkeyPrefix: cart\n"
	for name, test := range map[string]struct{ file, want string }{
		"another backend":   {"backend: {type: Redis, redis: {addresses: ['b:6379']}}\nmoveFrom: {backend: {type: Database, database: {url: 'sqlite:a.db'}}}", ""},
		"another server":    {"backend: {type: Redis, redis: {addresses: ['b:6379']}}\nmoveFrom: {backend: {type: Redis, redis: {addresses: ['a:6379']}}}", ""},
		"another prefix":    {"backend: {type: Redis, redis: {addresses: ['a:6379']}}\nmoveFrom: {keyPrefix: old, backend: {type: Redis, redis: {addresses: ['a:6379']}}}", ""},
		"another namespace": {"backend: {type: Redis, redis: {addresses: ['a:6379'], namespace: new_}}\nmoveFrom: {backend: {type: Redis, redis: {addresses: ['a:6379']}}}", ""},
		"the same place": {"backend: {type: Redis, redis: {addresses: ['a:6379']}}\nmoveFrom: {backend: {type: Redis, redis: {addresses: ['a:6379'], passwordFile: /p}}}",
			"moveFrom.backend: is the same place as backend, with the same prefix: name where the carts are now, or remove moveFrom"},
		"the same place, said twice": {"backend: {type: Redis, redis: {addresses: ['a:6379']}}\nmoveFrom: {keyPrefix: cart, backend: {type: Redis, redis: {addresses: ['a:6379']}}}",
			"moveFrom.backend: is the same place"},
		"nothing": {"backend: {type: Redis, redis: {addresses: ['a:6379']}}\nmoveFrom: {}", "moveFrom.backend.type: is missing"},
		"unknown field": {"backend: {type: Redis, redis: {addresses: ['a:6379']}}\nmoveFrom: {prefix: x, backend: {type: Redis, redis: {addresses: ['b:6379']}}}",
			"moveFrom.prefix"},
		"bad section": {"backend: {type: Redis, redis: {addresses: ['a:6379']}}\nmoveFrom: {backend: {type: Redis, redis: {addresses: ['b']}}}",
			"moveFrom.backend.redis.addresses[0]: must be host:port"},
		"bad prefix": {"backend: {type: Redis, redis: {addresses: ['a:6379']}}\nmoveFrom: {keyPrefix: 'a b', backend: {type: Redis, redis: {addresses: ['b:6379']}}}",
			"moveFrom.keyPrefix: must be 1 to 64 characters"},
		"from memory": {"backend: {type: Redis, redis: {addresses: ['a:6379']}}\nmoveFrom: {backend: {type: Memory}}", "moveFrom.backend.type: must not be Memory"},
		"to memory":   {"backend: {type: Memory}\nmoveFrom: {backend: {type: Redis, redis: {addresses: ['b:6379']}}}", "moveFrom: must not be set where backend.type is Memory"},
	} {
		c, err := config.Load([]byte(head + test.file))
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %s", name, err, test.want)
		case err == nil && (c.From() == nil || c.From().MoveFrom != nil || c.From().KeyPrefix == ""):
			t.Errorf("%s: from %+v", name, c.From())
		}
	}
	c, err := config.Load([]byte(head + "backend: {type: Redis, redis: {addresses: ['a:6379']}}\nmoveFrom: {backend: {type: Redis, redis: {addresses: ['b:6379'], passwordFile: /s/old}}}"))
	if err != nil {
		t.Fatal(err)
	}
	if files := maps.Collect(c.SecretFiles()); files["moveFrom.backend.redis.passwordFile"] != "/s/old" {
		t.Errorf("secret files: %v", slices.Collect(maps.Keys(files)))
	}
}
