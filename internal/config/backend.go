package config

import (
	"fmt"
	"iter"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// backends yields every backend of c by its path.
func (c *Config) backends() iter.Seq2[string, *Backend] {
	return func(yield func(string, *Backend) bool) {
		more := yield("backend", &c.Backend)
		if more && c.CriticalBackend != nil {
			more = yield("criticalBackend", c.CriticalBackend)
		}
		if more && c.MoveFrom != nil {
			yield("moveFrom.backend", &c.MoveFrom.Backend)
		}
	}
}

// section is one of the sections of a [Backend].
type section struct {
	name      string
	belongsTo BackendType
	given     bool
}

func (b *Backend) sections() []section {
	return []section{
		{"redis", BackendRedis, b.Redis != nil},
		{"memcached", BackendMemcached, b.Memcached != nil},
		{"dynamodb", BackendDynamoDB, b.DynamoDB != nil},
		{"database", BackendDatabase, b.Database != nil},
		{"file", BackendFile, b.File != nil},
		{"memory", BackendMemory, b.Memory != nil},
	}
}

// fileField is a field that names a file to read.
type fileField struct{ path, name string }

func (b *Backend) files() []fileField {
	var f []fileField
	if r := b.Redis; r != nil {
		f = append(f, fileField{"redis.usernameFile", r.UsernameFile}, fileField{"redis.passwordFile", r.PasswordFile},
			fileField{"redis.sentinelUsernameFile", r.SentinelUsernameFile}, fileField{"redis.sentinelPasswordFile", r.SentinelPasswordFile},
			fileField{"redis.tls.caFile", r.TLS.CAFile}, fileField{"redis.tls.certFile", r.TLS.CertFile}, fileField{"redis.tls.keyFile", r.TLS.KeyFile})
	}
	if d := b.DynamoDB; d != nil {
		f = append(f, fileField{"dynamodb.accessKeyIdFile", d.AccessKeyIDFile}, fileField{"dynamodb.secretAccessKeyFile", d.SecretAccessKeyFile})
	}
	if d := b.Database; d != nil {
		f = append(f, fileField{"database.urlFile", d.URLFile}, fileField{"database.usernameFile", d.UsernameFile}, fileField{"database.passwordFile", d.PasswordFile},
			fileField{"database.tls.caFile", d.TLS.CAFile}, fileField{"database.tls.certFile", d.TLS.CertFile}, fileField{"database.tls.keyFile", d.TLS.KeyFile})
	}
	return f
}

func (v *validator) backend(path string, b *Backend) {
	if b.Type == "" {
		v.problem(path+".type", "is missing: write one of %s", strings.Join(b.Type.choices(), ", "))
		return
	}
	choose(v, path+".type", b.Type)
	if !oneOf(b.Type) {
		return
	}
	for _, s := range b.sections() {
		switch {
		case s.given && s.belongsTo != b.Type:
			v.problem(path+"."+s.name, "does not belong to a backend of type %s: remove it, or set %s.type to %s", b.Type, path, s.belongsTo)
		case !s.given && s.belongsTo == b.Type && b.Type != BackendMemory:
			v.problem(path+"."+s.name, "is missing: a backend of type %s needs it", b.Type)
		}
	}
	for _, f := range b.files() {
		if strings.IndexByte(f.name, 0) >= 0 {
			v.problem(path+"."+f.path, "must not contain NUL")
		}
	}
	switch {
	case b.Type == BackendRedis && b.Redis != nil:
		v.redis(path+".redis", b.Redis)
	case b.Type == BackendMemcached && b.Memcached != nil:
		v.servers(path+".memcached.addresses", b.Memcached.Addresses)
	case b.Type == BackendDynamoDB && b.DynamoDB != nil:
		v.dynamodb(path+".dynamodb", b.DynamoDB)
	case b.Type == BackendDatabase && b.Database != nil:
		v.database(path+".database", b.Database)
	case b.Type == BackendFile && b.File != nil:
		if d := b.File.Directory; d == "" || !validPath(d) {
			v.problem(path+".file.directory", "must be the path of a folder for the carts, is %q", d)
		}
	}
}

func (v *validator) redis(path string, r *Redis) {
	mode := r.Mode
	if mode == "" {
		mode = RedisStandalone
	}
	// A single server may be on a Unix socket.
	if len(r.Addresses) != 1 || mode != RedisStandalone || !strings.HasPrefix(r.Addresses[0], "/") {
		v.servers(path+".addresses", r.Addresses)
	}
	choose(v, path+".mode", mode)
	if mode == RedisStandalone && len(r.Addresses) > 1 {
		v.problem(path+".addresses", "names %d servers, mode Standalone has one: set %s.mode to Sentinel or Cluster", len(r.Addresses), path)
	}
	switch {
	case mode == RedisSentinel && r.MasterName == "":
		v.problem(path+".masterName", "is missing: mode Sentinel needs the name by which the sentinels know the master")
	case mode != RedisSentinel && r.MasterName != "":
		v.problem(path+".masterName", "is for mode Sentinel only, the mode is %s", mode)
	}
	switch {
	case r.Database < 0:
		v.problem(path+".database", "must not be negative, is %d", r.Database)
	case mode == RedisCluster && r.Database != 0:
		v.problem(path+".database", "must be 0 in mode Cluster, which has no other, is %d", r.Database)
	}
	v.namespace(path+".namespace", r.Namespace)
	if r.MinReplicas < 0 || r.MinReplicas > maxMinReplicas {
		v.problem(path+".minReplicas", "must be 0 to %d, is %d", maxMinReplicas, r.MinReplicas)
	}
	if mode != RedisSentinel && (r.SentinelUsernameFile != "" || r.SentinelPasswordFile != "") {
		v.problem(path+".sentinelPasswordFile", "is for mode Sentinel only, the mode is %s", mode)
	}
	v.together(path, "usernameFile", r.UsernameFile, "passwordFile", r.PasswordFile)
	v.together(path, "sentinelUsernameFile", r.SentinelUsernameFile, "sentinelPasswordFile", r.SentinelPasswordFile)
	v.tls(path+".tls", r.TLS)
}

func (v *validator) tls(path string, t TLS) {
	v.together(path, "certFile", t.CertFile, "keyFile", t.KeyFile)
	v.together(path, "keyFile", t.KeyFile, "certFile", t.CertFile)
}

// together demands the field other if one is given.
func (v *validator) together(path, one, oneValue, other, otherValue string) {
	if oneValue != "" && otherValue == "" {
		v.problem(path+"."+other, "is missing: %s needs it", one)
	}
}

func (v *validator) servers(path string, servers []string) {
	if len(servers) == 0 {
		v.problem(path, "must name at least one server as host:port, for example 127.0.0.1:6379")
	}
	for i, s := range servers {
		host, port, err := net.SplitHostPort(s)
		_, ipErr := netip.ParseAddr(host)
		if err != nil || !isPort(port, 1) || ipErr != nil && !isHostname(host) {
			v.problem(path+"["+strconv.Itoa(i)+"]", "must be host:port, for example redis:6379, is %q", redactText(s))
		}
	}
}

var (
	tablePattern  = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,255}$`)
	regionPattern = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
)

func (v *validator) dynamodb(path string, d *DynamoDB) {
	if !tablePattern.MatchString(d.TableName) {
		v.problem(path+".tableName", "must be 3 to 255 characters of A-Z a-z 0-9 _ . and -, is %q", d.TableName)
	}
	if !regionPattern.MatchString(d.Region) {
		v.problem(path+".region", "must be a region, for example eu-central-1, is %q", d.Region)
	}
	if d.Endpoint != "" && !validURL(d.Endpoint) {
		v.problem(path+".endpoint", "must be a URL without user and password, for example http://127.0.0.1:8000, is %q", redactText(d.Endpoint))
	}
	v.together(path, "accessKeyIdFile", d.AccessKeyIDFile, "secretAccessKeyFile", d.SecretAccessKeyFile)
	v.together(path, "secretAccessKeyFile", d.SecretAccessKeyFile, "accessKeyIdFile", d.AccessKeyIDFile)
}

func (v *validator) database(path string, d *Database) {
	v.tls(path+".tls", d.TLS)
	switch {
	case d.URL == "" && d.URLFile == "":
		v.problem(path+".url", "is missing: write sqlite:PATH, postgres://… or mysql://…, or name a file that holds it in urlFile")
		return
	case d.URL != "" && d.URLFile != "":
		v.problem(path+".urlFile", "must not be set beside url")
		return
	case d.URL == "":
		return
	}
	if p := d.URL.Problem(); p != "" {
		if d.URL.Scheme() != "sqlite" {
			p += fmt.Sprintf(", is %q", d.URL)
		}
		v.problem(path+".url", "%s", p)
	}
	if d.URL.Scheme() == "sqlite" && (d.UsernameFile != "" || d.PasswordFile != "") {
		v.problem(path+".passwordFile", "is not for SQLite, which knows no users")
	}
	if p := d.TLSProblem(d.URL); p != "" {
		v.problem(path+".tls", "%s", p)
	}
}

// saysTLS finds the parameters of a URL that configure TLS.
var saysTLS = regexp.MustCompile(`(?i)[?&](ssl[a-z]*|tls)=`)

// TLSProblem says what is wrong with TLS settings beside a URL, or returns "". It quotes nothing of the URL, which may
// come from a secret file.
func (d *Database) TLSProblem(url URL) string {
	switch {
	case !d.TLS.Active():
		return ""
	case url.Scheme() == "sqlite":
		return "is not for SQLite, which is a file"
	case saysTLS.MatchString(string(url)):
		return "must not be set beside a URL that says how to speak TLS: remove sslmode and the like from the URL, or remove tls"
	}
	return ""
}

// Problem says what is wrong with a database URL, or returns "". It quotes nothing of the URL, which may come from a
// secret file.
func (u URL) Problem() string {
	_, rest, _ := strings.Cut(string(u), ":")
	switch scheme := u.Scheme(); scheme {
	case "sqlite":
		switch {
		case rest == "" || strings.IndexByte(rest, 0) >= 0:
			return "must name a file, for example " + string(DefaultDatabaseURL)
		case strings.Contains(rest, "?"):
			return "must not contain ?: SQLite takes no options here, and the name of its file cannot have one; for example " + string(DefaultDatabaseURL)
		}
	case "postgres", "postgresql", "mysql":
		host, name, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "/")
		host = host[strings.LastIndexByte(host, '@')+1:]
		name, _, _ = strings.Cut(name, "?")
		if !strings.HasPrefix(rest, "//") || host == "" || name == "" || strings.HasPrefix(host, ":") || strings.IndexByte(rest, 0) >= 0 {
			return "must be " + scheme + "://host/name"
		}
	default:
		return "must start with sqlite:, postgres:// or mysql://"
	}
	return ""
}
