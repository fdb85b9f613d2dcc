package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidecart/sidecart/internal/config"
)

const head = "apiVersion: sidecar.sidecart.dev/v1alpha1\nkind: SidecarConfig\n"

func TestDefaultIsValid(t *testing.T) {
	if p := config.Default().Validate(); len(p) > 0 {
		t.Fatal(p)
	}
}

func TestLoadFull(t *testing.T) {
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(data)
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		APIVersion: config.APIVersion, Kind: config.Kind, Generation: 7,
		Backend: config.Backend{Type: config.BackendRedis, Redis: &config.Redis{
			Addresses: []string{"s1:26379", "[::1]:26380"}, Mode: config.RedisSentinel, MasterName: "shop", Database: 3, Namespace: "laravel_cache_", MinReplicas: 2,
			UsernameFile: "/s/user", PasswordFile: "/s/password", SentinelUsernameFile: "/s/su", SentinelPasswordFile: "/s/sp",
			TLS: config.TLS{Enabled: true, CAFile: "/s/ca.crt", CertFile: "/s/tls.crt", KeyFile: "/s/tls.key", ServerName: "redis.shop", InsecureSkipVerify: true},
		}},
		CriticalBackend: &config.Backend{Type: config.BackendDatabase, Database: &config.Database{
			URL: "postgres://db/shop", UsernameFile: "/d/user", PasswordFile: "/d/password",
		}},
		MoveFrom: &config.MoveFrom{KeyPrefix: "old.cart", Backend: config.Backend{Type: config.BackendDatabase, Database: &config.Database{
			URL: "sqlite:/data/carts.db",
		}}},
		KeyPrefix: "shop.cart", TTL: config.Duration(48 * time.Hour), IdempotencyWindow: config.Duration(2 * time.Hour), CheckoutRetention: config.Duration(3 * time.Hour),
		Locking:  config.Locking{Mode: config.LockingEnabled, WaitTimeout: config.Duration(4 * time.Second), LeaseDuration: config.Duration(3 * time.Second), Reason: "MultipleReplicas"},
		Timeouts: config.Timeouts{Dial: config.Duration(2 * time.Second), Read: config.Duration(300 * time.Millisecond), Write: config.Duration(400 * time.Millisecond), Request: config.Duration(90 * time.Second)},
		Limits:   config.Limits{MaxItems: 10, MaxDocumentBytes: 2048, MaxCartBytes: 4096, MaxMetadataKeys: 20, MaxQuantity: 99},
		Listen:   config.Listen{GRPC: "127.0.0.1:1", HTTP: "localhost:2", Admin: ":3", Socket: "/run/sidecart.sock"},
		LogLevel: config.LogWarn, LogFormat: config.LogJSON, AllowFlush: true, AllowList: true,
		Fronts: config.Fronts{CheckoutWindow: config.Duration(10 * time.Minute)},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if bare := config.Default(); reflect.DeepEqual(got, bare) {
		t.Error("equal to the default")
	}
	written, err := config.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(data), string(written)); d != "" {
		t.Errorf("Marshal differs from what was read:\n%s", d)
	}
}

// backends are valid backend sections, one of each type.
var backends = map[string]string{
	"redis":             "{type: Redis, redis: {addresses: ['r:6379']}}",
	"redis as rendered": "{type: Redis, redis: {addresses: ['redis:6379'], mode: Standalone, usernameFile: '', passwordFile: '', tls: {}}}",
	"cluster":           "{type: Redis, redis: {addresses: ['a:1', 'b:2'], mode: Cluster}}",
	"memcached":         "{type: Memcached, memcached: {addresses: ['m:11211']}}",
	"dynamodb":          "{type: DynamoDB, dynamodb: {tableName: carts, region: eu-central-1, endpoint: 'http://127.0.0.1:8000'}}",
	"sqlite":            "{type: Database, database: {url: 'sqlite:/data/carts.db'}}",
	"mysql":             "{type: Database, database: {url: 'mysql://db:3306/shop', usernameFile: u, passwordFile: p}}",
	"postgres, tls":     "{type: Database, database: {url: 'postgres://me@a:5432,b/shop?pool_max_conns=4', tls: {caFile: ca, certFile: c, keyFile: k, serverName: db}}}",
	"url in a file":     "{type: Database, database: {urlFile: /s/url}}",
	"file":              "{type: File, file: {directory: /data}}",
	"memory":            "{type: Memory}",
	"memory, spelled":   "{type: Memory, memory: {}}",
}

func TestLoadBackends(t *testing.T) {
	for name, section := range backends {
		t.Run(name, func(t *testing.T) {
			c, err := config.Load([]byte(head + "backend: " + section))
			if err != nil {
				t.Fatal(err)
			}
			data, err := config.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			again, err := config.Load(data)
			if err != nil {
				t.Fatalf("what Marshal wrote is refused: %v\n%s", err, data)
			}
			if d := cmp.Diff(c, again); d != "" {
				t.Error(d)
			}
			if (c.Backend.Type != config.BackendDatabase) != (c.Backend.Database == nil) {
				t.Error("the default database stayed beside the backend that was named")
			}
		})
	}
}

func TestLoadProblems(t *testing.T) {
	redis := func(fields string) string { return "backend: {type: Redis, redis: {" + fields + "}}" }
	database := func(fields string) string { return "backend: {type: Database, database: {" + fields + "}}" }
	for name, tc := range map[string]struct {
		file string // after the head, unless it starts with "!"
		want []string
	}{
		"empty":               {"!", []string{"file: is empty: it must hold at least apiVersion and kind"}},
		"only a comment":      {"!# nothing", []string{"file: is empty: it must hold at least apiVersion and kind"}},
		"no YAML":             {"a: [\nb: c: d", []string{"line 2: did not find expected ',' or ']'"}},
		"no mapping":          {"![1]", []string{"file: is a list, not a mapping of fields: see apiVersion sidecar.sidecart.dev/v1alpha1"}},
		"two documents":       {"ttl: 1h\n---\nttl: 2h", []string{"file: holds more than one document"}},
		"no head":             {"!ttl: 1h", []string{"apiVersion: is missing: must be sidecar.sidecart.dev/v1alpha1", "kind: is missing: must be SidecarConfig"}},
		"other version":       {"!apiVersion: v2\nkind: Pod", []string{`apiVersion: must be sidecar.sidecart.dev/v1alpha1, is "v2"`, `kind: must be SidecarConfig, is "Pod"`}},
		"unknown fields":      {"locking: {modee: auto}\ncolour: red\n" + redis("addresses: ['r:1'], tls: {ca: x}"), []string{"locking.modee: unknown field", "colour: unknown field", "backend.redis.tls.ca: unknown field"}},
		"case matters":        {"TTL: 1h", []string{"TTL: unknown field"}},
		"empty key":           {"\"\": 1\nlocking: {\"\": 2, \"a\\nb\": 3}", []string{`"": unknown field`, `locking."": unknown field`, `locking."a\nb": unknown field`}},
		"twice":               {"ttl: 1h\nttl: 2h\nlocking: {mode: auto, mode: enabled}", []string{"ttl: is there twice (line 4)", "locking.mode: is there twice (line 5)"}},
		"odd key":             {"[a]: 1\nlocking: {{a: 1}: 2}", []string{"file: has a key that is a list, not a name (line 3)", "locking: has a key that is a mapping, not a name (line 4)"}},
		"anchors":             {"keyPrefix: &a x\nlogLevel: *a", []string{"keyPrefix: uses a YAML anchor or alias, which are not supported: write the value out", "logLevel: uses a YAML anchor or alias, which are not supported: write the value out"}},
		"merge key":           {"locking: {<<: {mode: auto}}", []string{"locking.<<: unknown field"}},
		"durations":           {"ttl: 86400\nlocking: {waitTimeout: 5, leaseDuration: soon}\ntimeouts: {dial: [1s], read: true}", []string{"ttl: must be a duration such as 30s, is the number 86400", "locking.waitTimeout: must be a duration such as 30s, is the number 5", `locking.leaseDuration: "soon" is no duration: write for example 500ms, 5s or 24h`, "timeouts.dial: must be a duration such as 30s, is a list", "timeouts.read: must be a duration such as 30s, is the boolean true"}},
		"types":               {"generation: '7'\nkeyPrefix: 12\nallowFlush: on\nlimits: {maxItems: 1.5, maxQuantity: 0x10, maxDocumentBytes: 99999999999999999999}\nlisten: []\nlocking: auto", []string{`generation: must be a whole number, is the text "7"`, "keyPrefix: must be a string, is the number 12", `allowFlush: must be true or false, is the text "on"`, "limits.maxItems: must be a whole number, is the number 1.5", `limits.maxQuantity: "0x10" is no whole number: write it in decimal digits`, "limits.maxDocumentBytes: must be a whole number, is the number 99999999999999999999", "listen: must be a mapping of fields, is a list", `locking: must be a mapping of fields, is the text "auto"`}},
		"list types":          {redis("addresses: r:6379"), []string{`backend.redis.addresses: must be a list, is the text "r:6379"`}},
		"no YAML, first line": {"!a: b: c", []string{"file: mapping values are not allowed in this context"}},
		"list elements":       {redis("addresses: ['r:6379', 7, r, 'x:0', 'redis://r:6379']"), []string{"backend.redis.addresses[1]: must be a string, is the number 7", `backend.redis.addresses[2]: must be host:port, for example redis:6379, is "r"`, `backend.redis.addresses[3]: must be host:port, for example redis:6379, is "x:0"`, `backend.redis.addresses[4]: must be host:port, for example redis:6379, is "redis://r:6379"`, "backend.redis.addresses: names 5 servers, mode Standalone has one: set backend.redis.mode to Sentinel or Cluster"}},
		"address, password":   {redis("addresses: ['redis://me:s3cret@r:6379']"), []string{`backend.redis.addresses[0]: must be host:port, for example redis:6379, is "redis://me:xxxxx@r:6379"`}},
		"endpoint, password":  {"backend: {type: DynamoDB, dynamodb: {tableName: carts, region: x, endpoint: 'http://me:s3cret@d:8000'}}", []string{`backend.dynamodb.endpoint: must be a URL without user and password, for example http://127.0.0.1:8000, is "http://me:xxxxx@d:8000"`}},
		"no URL at all":       {database("url: 'host=db password=s3cret'"), []string{`backend.database.url: must start with sqlite:, postgres:// or mysql://, is "xxxxx"`}},
		"a secret file":       {"!s3cret-word", []string{"file: is a single value, not a mapping of fields: see apiVersion sidecar.sidecart.dev/v1alpha1"}},
		"a secret pair":       {"!me: s3cret-word", []string{"file: has no field of a SidecarConfig: see apiVersion sidecar.sidecart.dev/v1alpha1"}},
		"a number":            {"!31415926535", []string{"file: is a single value, not a mapping of fields: see apiVersion sidecar.sidecart.dev/v1alpha1"}},
		"a secret alias":      {"!*s3cret-word", []string{"file: uses a YAML alias, which is not supported: write the value out"}},
		"generation":          {"generation: -1", []string{"generation: must not be negative, is -1"}},
		"no type":             {"backend: {redis: {addresses: ['r:1']}}", []string{"backend.type: is missing: write one of Redis, Memcached, DynamoDB, Database, Memory, File"}},
		"unknown type":        {"backend: {type: redis}", []string{`backend.type: must be one of Redis, Memcached, DynamoDB, Database, Memory, File, is "redis"`}},
		"no section":          {"backend: {type: Redis}", []string{"backend.redis: is missing: a backend of type Redis needs it"}},
		"wrong section":       {"backend: {type: Memory, redis: {addresses: ['r:1']}}", []string{"backend.redis: does not belong to a backend of type Memory: remove it, or set backend.type to Redis"}},
		"no addresses":        {redis(""), []string{"backend.redis.addresses: must name at least one server as host:port, for example 127.0.0.1:6379"}},
		"redis mode":          {redis("addresses: ['r:1'], mode: single"), []string{`backend.redis.mode: must be one of Standalone, Sentinel, Cluster, is "single"`}},
		"no master":           {redis("addresses: ['r:1'], mode: Sentinel"), []string{"backend.redis.masterName: is missing: mode Sentinel needs the name by which the sentinels know the master"}},
		"not a sentinel":      {redis("addresses: ['r:1'], masterName: m, sentinelPasswordFile: p"), []string{"backend.redis.masterName: is for mode Sentinel only, the mode is Standalone", "backend.redis.sentinelPasswordFile: is for mode Sentinel only, the mode is Standalone"}},
		"cluster database":    {redis("addresses: ['r:1'], mode: Cluster, database: 1"), []string{"backend.redis.database: must be 0 in mode Cluster, which has no other, is 1"}},
		"negative database":   {redis("addresses: ['r:1'], database: -1"), []string{"backend.redis.database: must not be negative, is -1"}},
		"half credentials":    {redis("addresses: ['r:1'], usernameFile: u, tls: {certFile: c}"), []string{"backend.redis.passwordFile: is missing: usernameFile needs it", "backend.redis.tls.keyFile: is missing: certFile needs it"}},
		"memcached":           {"backend: {type: Memcached, memcached: {addresses: []}}", []string{"backend.memcached.addresses: must name at least one server as host:port, for example 127.0.0.1:6379"}},
		"dynamodb":            {"backend: {type: DynamoDB, dynamodb: {tableName: x, region: '', endpoint: here, accessKeyIdFile: a}}", []string{`backend.dynamodb.tableName: must be 3 to 255 characters of A-Z a-z 0-9 _ . and -, is "x"`, `backend.dynamodb.region: must be a region, for example eu-central-1, is ""`, `backend.dynamodb.endpoint: must be a URL without user and password, for example http://127.0.0.1:8000, is "here"`, "backend.dynamodb.secretAccessKeyFile: is missing: accessKeyIdFile needs it"}},
		"bad namespace":       {redis("addresses: ['r:1'], namespace: 'a b'"), []string{`backend.redis.namespace: must be up to 128 characters of A-Z a-z 0-9 _ : . and -, is "a b"`}},
		"negative replicas":   {redis("addresses: ['r:1'], minReplicas: -1"), []string{"backend.redis.minReplicas: must be 0 to 16, is -1"}},
		"too many replicas":   {redis("addresses: ['r:1'], minReplicas: 17"), []string{"backend.redis.minReplicas: must be 0 to 16, is 17"}},
		"reserved namespace":  {redis("addresses: ['r:1'], namespace: lock.x"), []string{`backend.redis.namespace: must not start with "lock", which names what is kept beside the carts; is "lock.x"`}},
		"sqlite with options": {database("url: 'sqlite:/x?mode=ro'"), []string{"backend.database.url: must not contain ?: SQLite takes no options here, and the name of its file cannot have one; for example sqlite:sidecart.db"}},
		"no url":              {database(""), []string{"backend.database.url: is missing: write sqlite:PATH, postgres://… or mysql://…, or name a file that holds it in urlFile"}},
		"two urls":            {database("url: 'sqlite:x', urlFile: y"), []string{"backend.database.urlFile: must not be set beside url"}},
		"url scheme":          {database("url: 'oracle://x'"), []string{`backend.database.url: must start with sqlite:, postgres:// or mysql://, is "oracle://x"`}},
		"url without file":    {database("url: 'sqlite:'"), []string{"backend.database.url: must name a file, for example sqlite:sidecart.db"}},
		"url without host":    {database("url: 'postgres:x'"), []string{`backend.database.url: must be postgres://host/name, is "postgres:x"`}},
		"url with password":   {database("url: 'postgres://me:s3cret@db/shop'"), []string{"backend.database.url: holds a password: name a file in passwordFile, or the file of the whole URL in urlFile"}},
		"sqlite with a user":  {database("url: 'sqlite:x', passwordFile: p"), []string{"backend.database.passwordFile: is not for SQLite, which knows no users"}},
		"file":                {"backend: {type: File, file: {directory: ''}}", []string{`backend.file.directory: must be the path of a folder for the carts, is ""`}},
		"critical":            {"criticalBackend: {type: Redis, redis: {addresses: ['r:1']}}", []string{"criticalBackend.type: must be Database or DynamoDB, which keep what they acknowledge, is Redis"}},
		"url without name":    {database("url: 'mysql://db:3306'"), []string{`backend.database.url: must be mysql://host/name, is "mysql://db:3306"`}},
		"url, only a port":    {database("url: 'postgres://me@:5432/shop'"), []string{`backend.database.url: must be postgres://host/name, is "postgres://me@:5432/shop"`}},
		"tls of a file":       {database("url: 'sqlite:c.db', tls: {enabled: true}"), []string{"backend.database.tls: is not for SQLite, which is a file"}},
		"tls, twice":          {database("url: 'postgres://db/shop?a=b&sslmode=require', tls: {caFile: ca}"), []string{"backend.database.tls: must not be set beside a URL that says how to speak TLS: remove sslmode and the like from the URL, or remove tls"}},
		"tls without key":     {database("url: 'mysql://db/shop', tls: {certFile: c}"), []string{"backend.database.tls.keyFile: is missing: certFile needs it"}},
		"critical, broken":    {"criticalBackend: {type: Database, database: {url: 'mysql://u:p@h/d'}, oops: 1}", []string{"criticalBackend.oops: unknown field", "criticalBackend.database.url: holds a password: name a file in passwordFile, or the file of the whole URL in urlFile"}},
		"prefix":              {"keyPrefix: 'a b'", []string{`keyPrefix: must be 1 to 64 characters of A-Z a-z 0-9 _ : . and -, is "a b"`}},
		"empty prefix":        {"keyPrefix: ''", []string{`keyPrefix: must be 1 to 64 characters of A-Z a-z 0-9 _ : . and -, is ""`}},
		"long prefix":         {"keyPrefix: " + strings.Repeat("p", 65), []string{fmt.Sprintf("keyPrefix: must be 1 to 64 characters of A-Z a-z 0-9 _ : . and -, is %q", strings.Repeat("p", 65))}},
		"reserved prefix":     {"keyPrefix: lock.cart", []string{`keyPrefix: must not start with "lock", which names what is kept beside the carts; is "lock.cart"`}},
		"idempotency window":  {"idempotencyWindow: 721h", []string{"idempotencyWindow: must be between 1s and 720h, is 721h"}},
		"checkout retention":  {"checkoutRetention: 0s", []string{"checkoutRetention: must be between 1s and 8760h, is 0s"}},
		"ttl":                 {"ttl: 10ms", []string{"ttl: must be 0 (for ever) or at least 1s, is 10ms"}},
		"negative window":     {"fronts: {checkoutWindow: -1s}", []string{"fronts.checkoutWindow: must be between 0 (off) and 24h, is -1s"}},
		"long window":         {"fronts: {checkoutWindow: 25h}", []string{"fronts.checkoutWindow: must be between 0 (off) and 24h, is 25h"}},
		"negative ttl":        {"ttl: -1h", []string{"ttl: must be 0 (for ever) or at least 1s, is -1h"}},
		"locking mode":        {"locking: {mode: Auto}", []string{`locking.mode: must be one of enabled, disabled, auto, is "Auto"`}},
		"timeouts":            {"locking: {waitTimeout: 0s, leaseDuration: -1s}\ntimeouts: {dial: 0s, read: 1us, write: 48h, request: 0s}", []string{"locking.waitTimeout: must be between 1ms and 24h, is 0s", "locking.leaseDuration: must be between 1ms and 24h, is -1s", "timeouts.dial: must be between 1ms and 24h, is 0s", "timeouts.read: must be between 1ms and 24h, is 1µs", "timeouts.write: must be between 1ms and 24h, is 48h", "timeouts.request: must be between 1ms and 24h, is 0s"}},
		"request under wait":  {"locking: {waitTimeout: 5s}\ntimeouts: {request: 4s}", []string{"timeouts.request: must not be shorter than locking.waitTimeout (5s), or a request would end before its wait; is 4s"}},
		"lease under write":   {"locking: {leaseDuration: 400ms}", []string{"locking.leaseDuration: must not be shorter than timeouts.write (500ms), or a lock could end while its change is on the way; is 400ms"}},
		"limits":              {"limits: {maxItems: 0, maxDocumentBytes: 100000000, maxCartBytes: 3145729, maxMetadataKeys: 0, maxQuantity: -1}", []string{"limits.maxItems: must be between 1 and 1000000, is 0", "limits.maxDocumentBytes: must be between 2 and 67108864, is 100000000", "limits.maxCartBytes: must be between 1 and 3145728, so that every answer fits the 4 MiB that gRPC clients take by default; is 3145729", "limits.maxMetadataKeys: must be between 1 and 10000, is 0", "limits.maxQuantity: must be between 1 and 1000000000000, is -1"}},
		"no cart at all":      {"limits: {maxCartBytes: 0}", []string{"limits.maxCartBytes: must be between 1 and 3145728, so that every answer fits the 4 MiB that gRPC clients take by default; is 0"}},
		"open listeners":      {"listen: {grpc: ':7420', http: '0.0.0.0:7421', admin: '10.0.0.1:x'}", []string{`listen.grpc: must be a loopback address (127.0.0.1, ::1 or localhost), since the API has no authentication; is ":7420"`, `listen.http: must be a loopback address (127.0.0.1, ::1 or localhost), since the API has no authentication; is "0.0.0.0:7421"`, `listen.admin: must be host:port, for example 127.0.0.1:7420, is "10.0.0.1:x"`}},
		"shared address":      {"listen: {grpc: '127.0.0.1:7', http: '127.0.0.1:7'}", []string{"listen.http: is the address of another listener: 127.0.0.1:7"}},
		"long socket":         {"listen: {socket: /" + strings.Repeat("s", 107) + "}", []string{"listen.socket: is a path of 108 bytes, at most 107 are possible"}},
		"logs":                {"logLevel: loud\nlogFormat: xml", []string{`logLevel: must be one of debug, info, warn, error, is "loud"`, `logFormat: must be one of text, json, is "xml"`}},
		"everything at once":  {"ttl: soon\ncolour: red\nkeyPrefix: ''\nlogLevel: loud", []string{`ttl: "soon" is no duration: write for example 500ms, 5s or 24h`, "colour: unknown field", `keyPrefix: must be 1 to 64 characters of A-Z a-z 0-9 _ : . and -, is ""`, `logLevel: must be one of debug, info, warn, error, is "loud"`}},
	} {
		t.Run(name, func(t *testing.T) {
			file, bare := strings.CutPrefix(tc.file, "!")
			if !bare {
				file = head + file
			}
			_, err := config.Load([]byte(file))
			var problems config.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("Load = %v, want Problems", err)
			}
			if d := cmp.Diff(tc.want, strings.Split(problems.Error(), "\n")); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestLoadAccepts(t *testing.T) {
	for _, file := range []string{
		"ttl: 0", "ttl: 0s", "ttl: 1s", "keyPrefix: cart.lock", "keyPrefix: locks", "backend: null", "backend:",
		"listen: {grpc: '[::1]:0', http: '127.8.9.1:0', admin: '0.0.0.0:0'}", "listen: {socket: relative.sock}",
		"listen: {socket: /" + strings.Repeat("s", 106) + "}", "{}: x"[:0],
	} {
		if _, err := config.Load([]byte(head + file)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// An audit trail is kept only in databases that others can also query in SQL.
func TestAudit(t *testing.T) {
	const need = "audit.retention: " + config.NoAudit
	for name, tc := range map[string]struct{ file, want string }{
		"postgres":         {"backend: {type: Database, database: {url: 'postgres://db/shop'}}\naudit: {retention: 720h}", ""},
		"mysql":            {"backend: {type: Database, database: {url: 'mysql://db/shop'}}\naudit: {retention: 1m}", ""},
		"a URL in a file":  {"backend: {type: Database, database: {urlFile: /s/url}}\naudit: {retention: 1h}", ""},
		"none, on Redis":   {"backend: {type: Redis, redis: {addresses: ['r:1']}}\naudit: {retention: 0}", ""},
		"moved from Redis": {"backend: {type: Database, database: {url: 'mysql://db/shop'}}\nmoveFrom: {backend: {type: Redis, redis: {addresses: ['r:1']}}}\naudit: {retention: 1h}", ""},
		"redis":            {"backend: {type: Redis, redis: {addresses: ['r:1']}}\naudit: {retention: 1h}", need},
		"sqlite":           {"audit: {retention: 1h}", need},
		"memory":           {"backend: {type: Memory}\naudit: {retention: 1h}", need},
		"too short":        {"backend: {type: Database, database: {url: 'mysql://db/shop'}}\naudit: {retention: 59s}", "audit.retention: must be 0 (no audit trail) or at least 1m, is 59s"},
		"negative":         {"backend: {type: Database, database: {url: 'mysql://db/shop'}}\naudit: {retention: -1h}", "audit.retention: must be 0 (no audit trail) or at least 1m, is -1h"},
		"no duration":      {"backend: {type: Database, database: {url: 'mysql://db/shop'}}\naudit: {retention: 30 days}", `audit.retention: "30 days" is no duration: write for example 500ms, 5s or 24h`},
	} {
		c, err := config.Load([]byte(head + tc.file))
		if got := fmt.Sprint(err); tc.want == "" && err != nil || tc.want != "" && got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
		if err != nil || c.Audit == (config.Audit{}) {
			continue
		}
		text, err := config.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := config.Load(text); err != nil || again.Audit != c.Audit {
			t.Errorf("%s: %v, %v", name, again, err)
		}
	}
}

// Defaults that depend on each other give way to the values that were set.
func TestDependentDefaults(t *testing.T) {
	for _, tc := range []struct{ file, wait, lease, request string }{
		{"", "5s", "5s", "6s"},
		{"locking: {waitTimeout: 20s}", "20s", "5s", "21s"},
		{"locking: {waitTimeout: 100ms}", "100ms", "5s", "1.1s"},
		{"timeouts: {request: 3s}", "2.5s", "5s", "3s"},
		{"timeouts: {request: 60s}", "5s", "5s", "1m"},
		{"timeouts: {write: 9s}", "5s", "9s", "6s"},
		{"locking: {waitTimeout: 2s}\ntimeouts: {request: 2s}", "2s", "5s", "2s"},
	} {
		c, err := config.Load([]byte(head + tc.file))
		if err != nil {
			t.Errorf("%s: %v", tc.file, err)
			continue
		}
		got := []string{c.Locking.WaitTimeout.String(), c.Locking.LeaseDuration.String(), c.Timeouts.Request.String()}
		if d := cmp.Diff([]string{tc.wait, tc.lease, tc.request}, got); d != "" {
			t.Errorf("%s: %s", tc.file, d)
		}
	}
}

func TestBuilderLayers(t *testing.T) {
	redisFile := head + "backend: {type: Redis, redis: {addresses: ['file:1'], database: 2}}\nttl: 1h"
	type set struct{ path, text, source string }
	for name, tc := range map[string]struct {
		file string
		sets []set
		want func(*config.Config)
		err  string
	}{
		"nothing": {want: func(c *config.Config) {}},
		"flag over file": {file: redisFile, sets: []set{{"ttl", "2h", "--ttl"}}, want: func(c *config.Config) {
			c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"file:1"}, Database: 2}}
			c.TTL = config.Duration(2 * time.Hour)
		}},
		"names in any case": {sets: []set{{"backend.type", "rEDIS", "--backend"}, {"backend.redis.addresses", "a:1, b:2,", "--redis-address"}, {"backend.redis.mode", "CLUSTER", "x"}, {"locking.mode", "Enabled", "x"}, {"logLevel", "WARN", "x"}, {"allowFlush", "TRUE", "x"}},
			want: func(c *config.Config) {
				c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"a:1", "b:2"}, Mode: config.RedisCluster}}
				c.Locking.Mode, c.LogLevel, c.AllowFlush = config.LockingEnabled, config.LogWarn, true
			}},
		"another type drops the file's section": {file: redisFile, sets: []set{{"backend.type", "memory", "--backend"}}, want: func(c *config.Config) {
			c.Backend, c.TTL = config.Backend{Type: config.BackendMemory}, config.Duration(time.Hour)
		}},
		"the same type keeps it": {file: redisFile, sets: []set{{"backend.type", "redis", "--backend"}}, want: func(c *config.Config) {
			c.Backend = config.Backend{Type: config.BackendRedis, Redis: &config.Redis{Addresses: []string{"file:1"}, Database: 2}}
			c.TTL = config.Duration(time.Hour)
		}},
		"database alone is the default one": {file: redisFile, sets: []set{{"backend.type", "database", "--backend"}}, want: func(c *config.Config) {
			c.TTL = config.Duration(time.Hour)
		}},
		"a url overrules the file's urlFile": {file: head + "backend: {type: Database, database: {urlFile: /u}}", sets: []set{{"backend.database.url", "sqlite:x", "--database-url"}}, want: func(c *config.Config) {
			c.Backend.Database.URL = "sqlite:x"
		}},
		"an address without its type": {sets: []set{{"backend.redis.addresses", "a:1", "--redis-address"}},
			err: "backend.redis: does not belong to a backend of type Database: remove it, or set backend.type to Redis"},
		"what cannot be read names its source": {sets: []set{{"ttl", "soon", "SIDECART_TTL"}, {"limits.maxItems", "many", "--max-items"}, {"allowFlush", "maybe", "--allow-flush"}},
			err: "SIDECART_TTL: \"soon\" is no duration: write for example 500ms, 5s or 24h\n--max-items: \"many\" is no whole number: write it in decimal digits\n--allow-flush: \"maybe\" is no boolean: write true or false"},
		"what is wrong names its source": {sets: []set{{"locking.mode", "sometimes", "SIDECART_LOCKING"}, {"ttl", "1ms", "--ttl"}},
			err: "ttl: must be 0 (for ever) or at least 1s, is 1ms (set by --ttl)\nlocking.mode: must be one of enabled, disabled, auto, is \"sometimes\" (set by SIDECART_LOCKING)"},
	} {
		t.Run(name, func(t *testing.T) {
			b := config.NewBuilder()
			if tc.file != "" {
				b.File([]byte(tc.file))
			}
			for _, s := range tc.sets {
				b.Set(s.path, s.text, s.source)
			}
			got, err := b.Build()
			if tc.err != "" {
				if err == nil || err.Error() != tc.err {
					t.Fatalf("err = %v\nwant %s", err, tc.err)
				}
				return
			}
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

// Every field of the configuration whose name ends in File is among SecretFiles, so that a rotated secret is always
// noticed.
func TestSecretFilesAreComplete(t *testing.T) {
	c := config.Default()
	c.Backend = config.Backend{Redis: &config.Redis{}, Memcached: &config.Memcached{}, DynamoDB: &config.DynamoDB{}, Database: &config.Database{}, File: &config.File{}}
	var want []string
	var fill func(v reflect.Value, path string)
	fill = func(v reflect.Value, path string) {
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			at, f := path+"."+name, v.Field(i)
			if f.Kind() == reflect.Pointer && !f.IsNil() {
				f = f.Elem()
			}
			switch {
			case f.Kind() == reflect.Struct:
				fill(f, at)
			case strings.HasSuffix(name, "File"):
				f.SetString("/" + at)
				want = append(want, at)
			}
		}
	}
	fill(reflect.ValueOf(&c.Backend).Elem(), "backend")
	var got []string
	for path, file := range c.SecretFiles() {
		if file != "/"+path {
			t.Errorf("%s names %s", path, file)
		}
		got = append(got, path)
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" || len(got) < 12 {
		t.Errorf("fields (-) and SecretFiles (+): %s", d)
	}
}

func TestURLPrintsNoPassword(t *testing.T) {
	for url, want := range map[config.URL]string{
		"sqlite:a:b@c.db":                                "sqlite:a:b@c.db",
		"sqlite:sidecart.db":                             "sqlite:sidecart.db",
		"postgres://db/shop":                             "postgres://db/shop",
		"postgres://me@db/shop":                          "postgres://me@db/shop",
		"postgres://me:s3cret@db:5432/shop":              "postgres://me:xxxxx@db:5432/shop",
		"mysql://me:s3:cr@et@db/shop":                    "mysql://me:xxxxx@db/shop",
		"me:s3cret@tcp(db:3306)/shop":                    "me:xxxxx@tcp(db:3306)/shop",
		"postgres://db/shop?user=me&password=s3cret&x=y": "postgres://db/shop?user=me&password=xxxxx&x=y",
		"postgres://db/shop?sslpassword=s3cret":          "postgres://db/shop?sslpassword=xxxxx",
		"postgres://db/shop?p%61ssword=s3cret&x=y":       "postgres://db/shop?p%61ssword=xxxxx&x=y",
		"postgres://db:5432/shop?password=a@s3cret:x":    "postgres://db:xxxxx",
		"postgres://me:s3?cr#e/t@db/shop":                "postgres://me:xxxxx",
		"postgres://:s3cret@db/shop":                     "postgres://:xxxxx@db/shop",
		"mysql://me:a/s3cret@db/shop":                    "mysql://me:xxxxx@db/shop",
		"postgres:me:s3cret@db/shop":                     "postgres:xxxxx@db/shop",
		"host=db user=me password=s3cret":                "xxxxx",
		"s3cret":                                         "xxxxx",
		"sqlite:carts.db?key_secret=s3cret":              "sqlite:carts.db?key_secret=xxxxx",
		"redis://db/0":                                   "redis://db/0",
	} {
		if got := url.String(); got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
		c := config.Default()
		c.Backend.Database.URL = url
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "url", url, "all", c.Backend)
		j, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{fmt.Sprint(url), fmt.Sprintf("%v %+v %#v %q %s", url, *c.Backend.Database, url, url, url), log.String(), string(j), fmt.Sprintf("%#v", *c.Backend.Database)} {
			if strings.Contains(s, "s3") {
				t.Errorf("secret in %s", s)
			}
		}
		y, err := config.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(y), string(url)) {
			t.Errorf("Marshal lost the URL: %s", y)
		}
	}
}

func TestDurationText(t *testing.T) {
	for text, want := range map[string]string{"24h": "24h", "90m": "1h30m", "90s": "1m30s", "0": "0s", "500ms": "500ms", "1h0m1s": "1h0m1s", "60s": "1m"} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if d.String() != want {
			t.Errorf("%s is written as %s, want %s", text, d, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	for _, b := range backends {
		f.Add([]byte(head + "backend: " + b))
	}
	f.Add([]byte(head + "locking: {modee: x}\n"))
	f.Add([]byte("? [a]\n: &x {<<: *x}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Load(data)
		if err != nil {
			if p, ok := errors.AsType[config.Problems](err); !ok || len(p) == 0 || c != nil {
				t.Fatalf("Load = %v, %#v", c, err)
			} else {
				for _, problem := range p {
					if problem.Path == "" || problem.Message == "" || strings.Contains(problem.String(), "\n") {
						t.Fatalf("a problem without place or words: %#v", problem)
					}
				}
			}
			return
		}
		if p := c.Validate(); len(p) > 0 {
			t.Fatalf("Load accepted what Validate refuses: %v", p)
		}
		written, err := config.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Load(written)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if d := cmp.Diff(c, again); d != "" {
			t.Fatal(d)
		}
	})
}

// A sidecar of the release before reads the file of this release's operator, as long as nobody sets a field that it
// does not know.
func TestMarshalForOlderSidecars(t *testing.T) {
	c := config.Default()
	text, err := config.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"maxCartBytes", "maxMetadataKeys", "namespace", "idempotencyWindow", "checkoutRetention", "audit"} {
		if strings.Contains(string(text), field) {
			t.Errorf("%s is written although it is as by default:\n%s", field, text)
		}
	}
	c.Limits.MaxCartBytes, c.Limits.MaxMetadataKeys, c.IdempotencyWindow = 4096, 7, config.Duration(time.Hour)
	if text, err = config.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if again, err := config.Load(text); err != nil || again.Limits != c.Limits || again.IdempotencyWindow != c.IdempotencyWindow {
		t.Errorf("%v: %+v, want %+v", err, again, c.Limits)
	}
}
