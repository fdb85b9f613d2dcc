package config

import (
	"fmt"
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

// URL is a database URL, which may hold a password. It prints, and is logged,
// without it; [Marshal] and string(u) keep it.
type URL string

var queryPassword = regexp.MustCompile(`(?i)([?&;][^=&;]*(?:pass|secret|pwd)[^=&;]*=)[^&;]*`)

const redacted = "xxxxx"

// String is the URL with every password redacted. Where it is not clear what is
// password, too much is redacted.
func (u URL) String() string {
	start, rest := "", string(u)
	if i := strings.Index(rest, "://"); i >= 0 {
		start, rest = rest[:i+3], rest[i+3:]
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 && u.Scheme() != "sqlite" {
		if user, _, ok := strings.Cut(rest[:at], ":"); ok {
			rest = user + ":" + redacted + rest[at:]
		}
	}
	return start + queryPassword.ReplaceAllString(rest, "${1}"+redacted)
}

// GoString is String: %#v tells no secret either.
func (u URL) GoString() string { return fmt.Sprintf("%q", u.String()) }

// MarshalText is String, so that JSON and logs tell no secret.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalYAML keeps the whole URL: the file is what the sidecar connects with.
func (u URL) MarshalYAML() (any, error) { return string(u), nil }

// HasPassword reports whether the URL holds a password.
func (u URL) HasPassword() bool { return u.String() != string(u) }

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

// The locking modes. Auto means enabled wherever the backend can be shared; the
// operator resolves its own Auto before it renders.
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
