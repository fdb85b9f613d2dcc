package config

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Duration is a time.Duration that is written as "30s", "1m30s" or "24h".
type Duration time.Duration

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String is the shortest way to write d: "24h", not "24h0m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes d as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration: write for example 500ms, 5s or 24h", text)
	}
	*d = Duration(v)
	return nil
}

// URL is a database URL, which may hold a password. It prints, and is logged, without it; [Marshal] and string(u) keep
// it.
type URL string

var (
	schemeName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]{0,31}$`)
	parameter  = regexp.MustCompile(`([?&;])([^=&;]*)=([^&;]*)`)
	password   = regexp.MustCompile(`(?i)pass|secret|pwd|token|credential`)
)

const redacted = "xxxxx"

// String returns the URL with every password redacted. If it is not clear what belongs to a password, it redacts too
// much.
func (u URL) String() string {
	scheme, rest := u.Scheme(), string(u)
	if rest == "" || scheme == "sqlite" {
		return redactParameters(rest)
	}
	start := ""
	if i := strings.Index(rest, "://"); i >= 0 && schemeName.MatchString(rest[:i]) {
		start, rest = rest[:i+3], rest[i+3:]
	} else if !strings.Contains(rest, "@") {
		// No URL. It may be "host=db password=…", or a password in the wrong place.
		if before, after, ok := strings.Cut(rest, ":"); ok && schemeName.MatchString(before) && !strings.ContainsAny(after, "=;, ") {
			return redactParameters(rest)
		}
		return redacted
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user := rest[:at]
		if i := strings.IndexAny(user, ":/?#@=&;, "); i >= 0 {
			user = user[:i]
		}
		switch {
		case strings.ContainsAny(rest[:at], "?#"):
			// The @ may be in the password or after it.
			return start + user + ":" + redacted
		case len(user) < at:
			rest = user + ":" + redacted + rest[at:]
		}
	}
	return start + redactParameters(rest)
}

// redactParameters redacts the parameters of a URL whose names mean a password, also if the name is percent-encoded.
func redactParameters(text string) string {
	return parameter.ReplaceAllStringFunc(text, func(p string) string {
		m := parameter.FindStringSubmatch(p)
		name, err := url.QueryUnescape(m[2])
		if err == nil && !password.MatchString(name) {
			return p
		}
		return m[1] + m[2] + "=" + redacted
	})
}

// redactText returns the value of a field that should not be a URL, for an error. If somebody wrote a URL there, it may
// hold a password.
func redactText(text string) string {
	if !strings.ContainsAny(text, "@=") {
		return text
	}
	return URL(text).String()
}

// GoString is String, so that %#v shows no secret either.
func (u URL) GoString() string { return fmt.Sprintf("%q", u.String()) }

// MarshalText is String, so that JSON and logs show no secret.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalYAML keeps the whole URL: the file is what the sidecar connects with.
func (u URL) MarshalYAML() (any, error) { return string(u), nil }

// HasPassword reports whether the URL holds a password, or may do so.
func (u URL) HasPassword() bool { return u.Problem() == "" && u.String() != string(u) }

// Scheme is what stands before the first colon, in lower case: "sqlite".
func (u URL) Scheme() string {
	scheme, _, ok := strings.Cut(string(u), ":")
	if !ok {
		return ""
	}
	return strings.ToLower(scheme)
}

// BackendType names a kind of backend.
type BackendType string

// The backend types.
const (
	BackendRedis     BackendType = "Redis"
	BackendMemcached BackendType = "Memcached"
	BackendDynamoDB  BackendType = "DynamoDB"
	BackendDatabase  BackendType = "Database"
	BackendMemory    BackendType = "Memory"
	BackendFile      BackendType = "File"
)

// RedisMode says how the servers of a Redis work together.
type RedisMode string

// The Redis modes.
const (
	RedisStandalone RedisMode = "Standalone"
	RedisSentinel   RedisMode = "Sentinel"
	RedisCluster    RedisMode = "Cluster"
)

// LockingMode says whether locks are taken in the backend.
type LockingMode string

// The locking modes. Auto means enabled wherever the backend can be shared; the operator resolves its own Auto before
// it renders.
const (
	LockingEnabled  LockingMode = "enabled"
	LockingDisabled LockingMode = "disabled"
	LockingAuto     LockingMode = "auto"
)

// LogLevel is a level of log/slog.
type LogLevel string

// The log levels.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

// LogFormat is how log lines look.
type LogFormat string

// The log formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// choice is a type with a fixed set of values.
type choice interface{ choices() []string }

func (BackendType) choices() []string {
	return []string{"Redis", "Memcached", "DynamoDB", "Database", "Memory", "File"}
}
func (RedisMode) choices() []string   { return []string{"Standalone", "Sentinel", "Cluster"} }
func (LockingMode) choices() []string { return []string{"enabled", "disabled", "auto"} }
func (LogLevel) choices() []string    { return []string{"debug", "info", "warn", "error"} }
func (LogFormat) choices() []string   { return []string{"text", "json"} }
