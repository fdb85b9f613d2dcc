package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/config"
)

const head = "apiVersion: sidecar.sidecart.dev/v1alpha1\nkind: SidecarConfig\n"

func loadLayers(t *testing.T, args []string, env map[string]string) (*config.Config, error) {
	t.Helper()
	l, rest, err := parseFlags(args, env)
	if err != nil || len(rest) > 0 {
		t.Fatalf("parseFlags = %v, %v", rest, err)
	}
	return l.load()
}

func writeFile(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "c.yaml"), head+
		"backend: {type: Redis, redis: {addresses: ['file:1'], database: 3}}\nttl: 1h\nlocking: {mode: disabled, waitTimeout: 3s, leaseDuration: 4s}\nlimits: {maxItems: 7}\n")
	second := config.Duration(time.Second)
	for name, tc := range map[string]struct {
		args string
		env  map[string]string
		want func(*config.Config)
	}{
		"defaults": {want: func(*config.Config) {}},
		"file": {args: "--config " + file, want: func(c *config.Config) {
			c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"file:1"}, Database: 3}}
			c.TTL = config.Duration(time.Hour)
			c.Locking = config.Locking{Mode: config.LockingDisabled, WaitTimeout: 3 * second, LeaseDuration: 4 * second}
			c.Timeouts.Request = 4 * second
			c.Limits.MaxItems = 7
		}},
		"environment over file, flags over both": {
			args: "--ttl 3h --redis-address flag:1,flag:2 --redis-address flag:3 --redis-mode cluster --redis-database 0",
			env:  map[string]string{"SIDECART_CONFIG": file, "SIDECART_TTL": "2h", "SIDECART_REDIS_ADDRESS": "env:1", "SIDECART_MAX_ITEMS": "8", "SIDECART_LOCKING": "ENABLED", "CART_CACHE_LOCKING": "false"},
			want: func(c *config.Config) {
				c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"flag:1", "flag:2", "flag:3"}, Mode: config.RedisCluster}}
				c.TTL = config.Duration(3 * time.Hour)
				c.Locking = config.Locking{Mode: config.LockingEnabled, WaitTimeout: 3 * second, LeaseDuration: 4 * second}
				c.Timeouts.Request = 4 * second
				c.Limits.MaxItems = 8
			},
		},
		"the variables of the replaced system": {env: map[string]string{"CART_CACHE_LOCKING": "true", "CART_LOCK_TIMEOUT": "7"}, want: func(c *config.Config) {
			c.Locking = config.Locking{Mode: config.LockingEnabled, WaitTimeout: 7 * second, LeaseDuration: 7 * second}
			c.Timeouts.Request = 8 * second
		}},
		"they win over the file": {args: "--config=" + file, env: map[string]string{"CART_CACHE_LOCKING": "on", "CART_LOCK_TIMEOUT": "0.5"}, want: func(c *config.Config) {
			c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"file:1"}, Database: 3}}
			c.TTL, c.Limits.MaxItems = config.Duration(time.Hour), 7
			c.Locking = config.Locking{Mode: config.LockingEnabled, WaitTimeout: second / 2, LeaseDuration: second / 2}
			c.Timeouts.Request = second + second/2
		}},
		"ours win over them, whatever they say": {env: map[string]string{"CART_CACHE_LOCKING": "perhaps", "CART_LOCK_TIMEOUT": "long", "SIDECART_LOCKING": "disabled", "SIDECART_LOCK_TIMEOUT": "2s"}, want: func(c *config.Config) {
			c.Locking = config.Locking{Mode: config.LockingDisabled, WaitTimeout: 2 * second, LeaseDuration: 2 * second}
			c.Timeouts.Request = 3 * second
		}},
		"one half of the lock timeout": {env: map[string]string{"CART_LOCK_TIMEOUT": "7", "SIDECART_LEASE_DURATION": "9s"}, want: func(c *config.Config) {
			c.Locking.WaitTimeout, c.Locking.LeaseDuration, c.Timeouts.Request = 7*second, 9*second, 8*second
		}},
		"lock timeout is both, the special flag wins": {args: "--wait-timeout 1s --lock-timeout 8s", want: func(c *config.Config) {
			c.Locking.WaitTimeout, c.Locking.LeaseDuration, c.Timeouts.Request = second, 8*second, 2*second
		}},
		"an empty variable is none": {env: map[string]string{"SIDECART_TTL": "", "CART_LOCK_TIMEOUT": "", "SIDECART_ALLOW_FLUSH": ""}, want: func(*config.Config) {}},
		"another backend than the environment": {args: "--backend memory", env: map[string]string{"SIDECART_BACKEND": "redis", "SIDECART_REDIS_ADDRESS": "env:1"}, want: func(c *config.Config) {
			c.Backend = config.Backend{Type: config.BackendMemory}
		}},
		"another backend than the file": {args: "--backend database --database-url sqlite:x.db --config " + file, want: func(c *config.Config) {
			c.Backend.Database.URL = "sqlite:x.db"
			c.TTL, c.Limits.MaxItems = config.Duration(time.Hour), 7
			c.Locking = config.Locking{Mode: config.LockingDisabled, WaitTimeout: 3 * second, LeaseDuration: 4 * second}
			c.Timeouts.Request = 4 * second
		}},
		"every flag": {
			args: "--backend redis --redis-address r:1 --redis-mode sentinel --redis-master-name m --redis-database 2 --redis-username-file u --redis-password-file p --redis-sentinel-username-file su --redis-sentinel-password-file sp " +
				"--redis-tls --redis-tls-ca-file ca --redis-tls-cert-file c --redis-tls-key-file k --redis-tls-server-name s --redis-tls-insecure-skip-verify=true " +
				"--key-prefix x --ttl 0 --max-items 1 --max-document-bytes 2 --max-cart-bytes 4 --max-metadata-keys 5 --max-quantity 3 --allow-flush --allow-list --front-checkout-window 10m --locking auto --wait-timeout 1s --lease-duration 2s " +
				"--dial-timeout 3s --read-timeout 4s --write-timeout 1s --request-timeout 6s --grpc-address 127.0.0.1:1 --http-address 127.0.0.1:2 --admin-address :3 --socket s --log-level debug --log-format json",
			want: func(c *config.Config) {
				c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"r:1"}, Mode: config.RedisSentinel, MasterName: "m", Database: 2,
					UsernameFile: "u", PasswordFile: "p", SentinelUsernameFile: "su", SentinelPasswordFile: "sp",
					TLS: config.TLS{Enabled: true, CAFile: "ca", CertFile: "c", KeyFile: "k", ServerName: "s", InsecureSkipVerify: true}}}
				c.KeyPrefix, c.TTL, c.AllowFlush, c.AllowList = "x", 0, true, true
				c.Fronts.CheckoutWindow = config.Duration(10 * time.Minute)
				c.Limits = config.Limits{MaxItems: 1, MaxDocumentBytes: 2, MaxCartBytes: 4, MaxMetadataKeys: 5, MaxQuantity: 3}
				c.Locking = config.Locking{Mode: config.LockingAuto, WaitTimeout: second, LeaseDuration: 2 * second}
				c.Timeouts = config.Timeouts{Dial: 3 * second, Read: 4 * second, Write: second, Request: 6 * second}
				c.Listen = config.Listen{GRPC: "127.0.0.1:1", HTTP: "127.0.0.1:2", Admin: ":3", Socket: "s"}
				c.LogLevel, c.LogFormat = config.LogDebug, config.LogJSON
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := loadLayers(t, strings.Fields(tc.args), tc.env)
			if err != nil {
				t.Fatal(err)
			}
			want := config.Default()
			tc.want(want)
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestBadSettingsNameTheirSource(t *testing.T) {
	for name, tc := range map[string]struct {
		args string
		env  map[string]string
		want string
	}{
		"variable":  {env: map[string]string{"SIDECART_TTL": "soon"}, want: `SIDECART_TTL: "soon" is no duration: write for example 500ms, 5s or 24h`},
		"old":       {env: map[string]string{"CART_LOCK_TIMEOUT": "5s"}, want: `CART_LOCK_TIMEOUT: "5s" is no number of seconds: write for example 5`},
		"old zero":  {env: map[string]string{"CART_LOCK_TIMEOUT": "0"}, want: `CART_LOCK_TIMEOUT: "0" is no number of seconds: write for example 5`},
		"old bool":  {env: map[string]string{"CART_CACHE_LOCKING": "maybe"}, want: `CART_CACHE_LOCKING: "maybe" is no boolean: write true or false`},
		"rule":      {env: map[string]string{"SIDECART_KEY_PREFIX": "lock.x"}, want: `keyPrefix: must not start with "lock", which names what is kept beside the carts; is "lock.x" (set by SIDECART_KEY_PREFIX)`},
		"flag":      {args: "--max-items=many", want: `--max-items: "many" is no whole number: write it in decimal digits`},
		"switch":    {args: "--allow-flush=perhaps", want: `--allow-flush: "perhaps" is no boolean: write true or false`},
		"typo":      {args: "--backend rediss", want: `backend.type: must be one of Redis, Memcached, DynamoDB, Database, Memory, File, is "rediss" (set by --backend)`},
		"postgres":  {args: "--database-url postgres://u:s3cret@db", want: `backend.database.url: must be postgres://host/name, is "postgres://u:xxxxx@db" (set by --database-url)`},
		"loopback":  {args: "--grpc-address 0.0.0.0:7420", want: `listen.grpc: must be a loopback address (127.0.0.1, ::1 or localhost), since the API has no authentication; is "0.0.0.0:7420" (set by --grpc-address)`},
		"no server": {args: "--backend redis", want: "backend.redis: is missing: a backend of type Redis needs it"},
		"no file":   {args: "--config /does/not/exist", want: "file: open /does/not/exist: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadLayers(t, strings.Fields(tc.args), tc.env)
			if err == nil || err.Error() != tc.want {
				t.Errorf("err  = %v\nwant = %s", err, tc.want)
			}
		})
	}
}

// Every flag is in the help with its variable, and every field that a person may want to set has a flag.
func TestEverySettingIsDocumented(t *testing.T) {
	var help strings.Builder
	printHelp(&help)
	seen := map[string]bool{}
	for _, g := range groups {
		for _, s := range g.settings {
			if seen[s.flag] {
				t.Errorf("--%s is there twice", s.flag)
			}
			seen[s.flag] = true
			if !strings.Contains(help.String(), "--"+s.flag) || !strings.Contains(help.String(), "["+s.env()+"]") {
				t.Errorf("--%s or %s is not in the help", s.flag, s.env())
			}
			for _, path := range s.paths {
				config.NewBuilder().Set(path, "1", "test") // panics where there is no such field
			}
		}
	}
	for _, text := range []string{"(default 24h) [SIDECART_TTL]", "(default sqlite:sidecart.db) [SIDECART_DATABASE_URL]", "(default auto) [SIDECART_LOCKING]", "(default 127.0.0.1:7422)", "(default 6s) [SIDECART_REQUEST_TIMEOUT]"} {
		if !strings.Contains(help.String(), text) {
			t.Errorf("the help lacks %s", text)
		}
	}
}
