package config

import (
	"fmt"
	"iter"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxTimeout is the longest time that a configuration may name.
const MaxTimeout = 24 * time.Hour

// maxIdempotencyWindow is 30 days: nobody sends a request again after that.
const maxIdempotencyWindow = 720 * time.Hour

// maxCheckoutRetention is a year. A record that must be kept for longer belongs with the orders.
const maxCheckoutRetention = 8760 * time.Hour

// Bounds that say "this is a slip" rather than "this is a lot".
const (
	maxMaxItems      = 1_000_000
	maxDocumentBytes = 64 << 20
	// maxCartBytes leaves room for the envelope of an answer within the 4 MiB that gRPC clients take.
	maxCartBytes    = 3 << 20
	maxMetadataKeys = 10_000
	maxMaxQuantity  = 1_000_000_000_000
	maxMinReplicas  = 16
	// maxSocketBytes is the size of sun_path on Linux without its final NUL.
	maxSocketBytes = 107
)

// Validate returns everything that is wrong with c, in the order of its fields.
func (c *Config) Validate() Problems {
	v := &validator{}
	v.exact("apiVersion", c.APIVersion, APIVersion)
	v.exact("kind", c.Kind, Kind)
	if c.Generation < 0 {
		v.problem("generation", "must not be negative, is %d", c.Generation)
	}
	v.backend("backend", &c.Backend)
	if b := c.CriticalBackend; b != nil {
		v.backend("criticalBackend", b)
		switch {
		case oneOf(b.Type) && b.Type != BackendDatabase && b.Type != BackendDynamoDB:
			v.problem("criticalBackend.type", "must be Database or DynamoDB, which keep what they acknowledge, is %s", b.Type)
		case b.Type == BackendDatabase && b.Database != nil && b.Database.URL.Scheme() == "sqlite":
			v.problem("criticalBackend.database.url", "%s", NoCriticalSQLite)
		}
	}
	v.move(c)
	v.keyPrefix("keyPrefix", c.KeyPrefix)
	if ttl := c.TTL.Std(); ttl != 0 && ttl < time.Second {
		v.problem("ttl", "must be 0 (for ever) or at least 1s, is %s", c.TTL)
	}
	if w := c.IdempotencyWindow.Std(); w < time.Second || w > maxIdempotencyWindow {
		v.problem("idempotencyWindow", "must be between 1s and %s, is %s", Duration(maxIdempotencyWindow), c.IdempotencyWindow)
	}
	if r := c.CheckoutRetention.Std(); r < time.Second || r > maxCheckoutRetention {
		v.problem("checkoutRetention", "must be between 1s and %s, is %s", Duration(maxCheckoutRetention), c.CheckoutRetention)
	}
	v.times(c)
	within(v, "limits.maxItems", int64(c.Limits.MaxItems), 1, maxMaxItems)
	within(v, "limits.maxDocumentBytes", int64(c.Limits.MaxDocumentBytes), 2, maxDocumentBytes)
	if n := c.Limits.MaxCartBytes; n < 1 || n > maxCartBytes {
		v.problem("limits.maxCartBytes", "must be between 1 and %d, so that every answer fits the 4 MiB that gRPC clients take by default; is %d", maxCartBytes, n)
	}
	within(v, "limits.maxMetadataKeys", int64(c.Limits.MaxMetadataKeys), 1, maxMetadataKeys)
	within(v, "limits.maxQuantity", c.Limits.MaxQuantity, 1, maxMaxQuantity)
	v.listen("listen", &c.Listen)
	choose(v, "logLevel", c.LogLevel)
	choose(v, "logFormat", c.LogFormat)
	if w := c.Fronts.CheckoutWindow.Std(); w < 0 || w > MaxTimeout {
		v.problem("fronts.checkoutWindow", "must be between 0 (off) and %s, is %s", Duration(MaxTimeout), c.Fronts.CheckoutWindow)
	}
	v.audit(c)
	return v.problems
}

// NoCriticalSQLite is the problem of a backend for checkouts in a file.
const NoCriticalSQLite = "must be postgres://… or mysql://…: an SQLite file belongs to one machine, and all sidecars must share criticalBackend"

// minRetention is the shortest life of a line of an audit trail: less would be no trail.
const minRetention = time.Minute

func (v *validator) audit(c *Config) {
	const path = "audit.retention"
	retention := c.Audit.Retention
	if retention != 0 && retention.Std() < minRetention {
		v.problem(path, "must be 0 (no audit trail) or at least %s, is %s", Duration(minRetention), retention)
	}
	if retention != 0 && oneOf(c.Backend.Type) && !c.Backend.mayAudit() {
		v.problem(path, "%s", NoAudit)
	}
}

// NoAudit is the problem of an audit trail in a backend that keeps none.
const NoAudit = "needs a PostgreSQL or MySQL database in backend, which can be asked in SQL: write backend.type Database with a URL " +
	"postgres://HOST/NAME or mysql://HOST/NAME, or remove audit"

// mayAudit reports whether a backend can keep an audit trail, as far as the configuration says: a URL may stand in a
// file.
func (b *Backend) mayAudit() bool {
	return b.Type == BackendDatabase && (b.Database == nil || b.Database.URL.Scheme() != "sqlite")
}

type validator struct{ problems Problems }

func (v *validator) problem(path, format string, args ...any) {
	v.problems = append(v.problems, Problem{path, fmt.Sprintf(format, args...)})
}

func (v *validator) exact(path, got, want string) {
	if got != want {
		v.problem(path, "must be %s, is %q", want, got)
	}
}

func oneOf[T interface {
	choice
	~string
}](value T) bool {
	return slices.Contains(value.choices(), string(value))
}

func choose[T interface {
	choice
	~string
}](v *validator, path string, value T) {
	if !oneOf(value) {
		v.problem(path, "must be one of %s, is %q", strings.Join(value.choices(), ", "), string(value))
	}
}

func within(v *validator, path string, n, lowest, highest int64) {
	if n < lowest || n > highest {
		v.problem(path, "must be between %d and %d, is %d", lowest, highest, n)
	}
}

func (v *validator) times(c *Config) {
	l, t := &c.Locking, &c.Timeouts
	choose(v, "locking.mode", l.Mode)
	bad := false
	for _, f := range []struct {
		path string
		d    Duration
	}{
		{"locking.waitTimeout", l.WaitTimeout},
		{"locking.leaseDuration", l.LeaseDuration},
		{"timeouts.dial", t.Dial},
		{"timeouts.read", t.Read},
		{"timeouts.write", t.Write},
		{"timeouts.request", t.Request},
	} {
		if f.d.Std() < time.Millisecond || f.d.Std() > MaxTimeout {
			v.problem(f.path, "must be between 1ms and %s, is %s", Duration(MaxTimeout), f.d)
			bad = true
		}
	}
	if bad {
		return
	}
	if l.LeaseDuration < t.Write {
		v.problem("locking.leaseDuration", "must not be shorter than timeouts.write (%s), or a lock could end while its change is on the way; is %s", t.Write, l.LeaseDuration)
	}
	if t.Request < l.WaitTimeout {
		v.problem("timeouts.request", "must not be shorter than locking.waitTimeout (%s), or a request would end before its wait; is %s", l.WaitTimeout, t.Request)
	}
}

var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9_:.-]{1,64}$`)

// reserved are the first components of names that the backends use beside carts.
var reserved = []string{"lock", "queue", "index", "fence"}

func (v *validator) keyPrefix(path, prefix string) {
	if !prefixPattern.MatchString(prefix) {
		v.problem(path, "must be 1 to 64 characters of A-Z a-z 0-9 _ : . and -, is %q", prefix)
		return
	}
	if first, _, _ := strings.Cut(prefix, "."); slices.Contains(reserved, first) {
		v.problem(path, "must not start with %q, which names what is kept beside the carts; is %q", first, prefix)
	}
}

var namespacePattern = regexp.MustCompile(`^[A-Za-z0-9_:.-]{0,128}$`)

func (v *validator) namespace(path, namespace string) {
	if !namespacePattern.MatchString(namespace) {
		v.problem(path, "must be up to 128 characters of A-Z a-z 0-9 _ : . and -, is %q", namespace)
		return
	}
	if first, _, dotted := strings.Cut(namespace, "."); dotted && slices.Contains(reserved, first) {
		v.problem(path, "must not start with %q, which names what is kept beside the carts; is %q", first, namespace)
	}
}

func (v *validator) listen(path string, l *Listen) {
	v.address(path+".grpc", l.GRPC, true)
	v.address(path+".http", l.HTTP, true)
	v.address(path+".admin", l.Admin, false)
	all := []string{l.GRPC, l.HTTP, l.Admin}
	for i, name := range []string{".grpc", ".http", ".admin"} {
		_, port, _ := net.SplitHostPort(all[i])
		if port != "0" && port != "" && slices.Index(all, all[i]) < i {
			v.problem(path+name, "is the address of another listener: %s", all[i])
		}
	}
	switch {
	case len(l.Socket) > maxSocketBytes:
		v.problem(path+".socket", "is a path of %d bytes, at most %d are possible", len(l.Socket), maxSocketBytes)
	case strings.IndexByte(l.Socket, 0) >= 0:
		v.problem(path+".socket", "must not contain NUL")
	case strings.HasSuffix(l.Socket, "/"):
		v.problem(path+".socket", "must be the path of a file, is the folder %s", l.Socket)
	}
}

// address checks host:port of a listener, where port 0 picks a free one.
func (v *validator) address(path, address string, loopback bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !isPort(port, 0) {
		v.problem(path, "must be host:port, for example 127.0.0.1:7420, is %q", redactText(address))
		return
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case loopback && host != "localhost" && (err != nil || !ip.IsLoopback()):
		v.problem(path, "must be a loopback address (127.0.0.1, ::1 or localhost), since the API has no authentication; is %q", redactText(address))
	case err != nil && host != "" && !isHostname(host):
		v.problem(path, "must be host:port, for example :7422, is %q", redactText(address))
	}
}

func isPort(s string, lowest int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= lowest && n <= 65535 && s[0] != '+'
}

var hostname = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?$`)

func isHostname(s string) bool { return hostname.MatchString(s) }

// SecretFiles yields the path of each field that names a file to read, and the file, where one is named.
func (c *Config) SecretFiles() iter.Seq2[string, string] {
	return func(yield func(path, file string) bool) {
		for at, b := range c.backends() {
			for _, f := range b.files() {
				if f.name != "" && !yield(at+"."+f.path, f.name) {
					return
				}
			}
		}
	}
}

// validURL checks an endpoint.
func validURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}

func validPath(s string) bool { return strings.IndexByte(s, 0) < 0 && filepath.Clean(s) != "/" }
