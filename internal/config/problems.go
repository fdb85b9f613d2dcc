package config

import "strings"

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Path is where it is: "locking.waitTimeout", "backend.redis.addresses[1]", a flag ("--ttl"), an environment
	// variable, or "line 3" if the file is not YAML.
	Path string `json:"path"`
	// Message says what is wrong and what would be right.
	Message string `json:"message"`
}

// String is the problem on one line.
func (p Problem) String() string { return p.Path + ": " + p.Message }

// Problems is everything that is wrong with a configuration. It is an error when it is not empty; see [Problems.Err].
type Problems []Problem

// Error lists every problem, one per line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// Err returns p as an error, or nil if nothing is wrong.
func (p Problems) Err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// has reports whether path, or a section that contains it, was reported already.
func (p Problems) has(path string) bool {
	for i := range p {
		if rest, ok := strings.CutPrefix(path, p[i].Path); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}
