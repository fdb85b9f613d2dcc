package config

import (
	"slices"
	"strings"
)

// Product is a kind of backend as people choose it: a type, and for databases the dialect.
type Product struct {
	Type BackendType
	// Dialect is that of a Database as a CartStorage names it; "" for the other types.
	Dialect string
	// Shared says that several pods can keep their carts in it, and that locks hold between them.
	Shared bool
}

// String is "Redis" or "Database (SQLite)".
func (p Product) String() string {
	if p.Dialect == "" {
		return string(p.Type)
	}
	return string(p.Type) + " (" + p.Dialect + ")"
}

// Built lists the backends of this version. It is the only such list: tests compare it with what can be opened, what
// the API server accepts and what messages recommend.
var Built = []Product{
	{Type: BackendRedis, Shared: true},
	{Type: BackendMemcached, Shared: true},
	{Type: BackendDynamoDB, Shared: true},
	{Type: BackendDatabase, Dialect: "PostgreSQL", Shared: true},
	{Type: BackendDatabase, Dialect: "MySQL", Shared: true},
	{Type: BackendDatabase, Dialect: "SQLite"},
	{Type: BackendMemory},
	{Type: BackendFile},
}

// BuiltNames are the backends of this version in words: "Redis, Database (PostgreSQL), … and Memory".
func BuiltNames() string { return names(func(Product) bool { return true }, "and") }

// SharedNames are those that several pods can share, in words.
func SharedNames() string { return names(func(p Product) bool { return p.Shared }, "or") }

func names(want func(Product) bool, last string) string {
	var all []string
	for _, p := range Built {
		if want(p) {
			all = append(all, p.String())
		}
	}
	if n := len(all) - 1; n > 0 {
		return strings.Join(all[:n], ", ") + " " + last + " " + all[n]
	}
	return strings.Join(all, "")
}

// IsShared reports whether several pods can keep their carts in a backend of that type, and for databases of that
// dialect.
func IsShared(t BackendType, dialect string) bool {
	return slices.ContainsFunc(Built, func(p Product) bool { return p.Shared && p.Type == t && (t != BackendDatabase || p.Dialect == dialect) })
}

// IsBuilt reports whether this version has a backend of that type, and for databases of that dialect.
func IsBuilt(t BackendType, dialect string) bool {
	return slices.ContainsFunc(Built, func(p Product) bool { return p.Type == t && (t != BackendDatabase || p.Dialect == dialect) })
}

// Dialect returns the database product of a URL, as a CartStorage names it, or "" for other schemes.
func (u URL) Dialect() string {
	switch u.Scheme() {
	case "sqlite":
		return "SQLite"
	case "postgres", "postgresql":
		return "PostgreSQL"
	case "mysql":
		return "MySQL"
	}
	return ""
}

// NotBuilt reports what a valid configuration asks for and this version does not have. It is a rule for [Builder.Rule].
func NotBuilt(c *Config) (p Problems) {
	p = notBuilt("backend", &c.Backend)
	if c.MoveFrom != nil {
		p = append(p, notBuilt("moveFrom.backend", &c.MoveFrom.Backend)...)
	}
	if c.CriticalBackend != nil {
		p = append(p, notBuilt("criticalBackend", c.CriticalBackend)...)
	}
	return p
}

func notBuilt(path string, b *Backend) (p Problems) {
	switch {
	case b.Type == BackendDatabase:
		if b.Database != nil {
			p = append(p, NotBuiltURL(path+".database.url", b.Database.URL)...)
		}
	case oneOf(b.Type) && !IsBuilt(b.Type, ""):
		p = append(p, Problem{path, "type " + string(b.Type) + " is not built into this version; available are " + BuiltNames()})
	}
	return p
}

// NotBuiltURL refuses the databases that a valid URL can name and this version does not have.
func NotBuiltURL(path string, url URL) Problems {
	if d := url.Dialect(); d != "" && !IsBuilt(BackendDatabase, d) {
		return Problems{{path, url.Scheme() + " is not built into this version; available are " + BuiltNames()}}
	}
	return nil
}
