package config

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// VariablePrefix begins the name of every environment variable of the programs.
const VariablePrefix = "SIDECART_"

// Variables that the operator sets in the container of a sidecar.
const (
	// LastGoodVariable names the file of the configuration that worked last.
	LastGoodVariable = "SIDECART_LAST_GOOD"
	// MemoryLimitVariable is the container's memory limit in bytes.
	MemoryLimitVariable = "SIDECART_MEMORY_LIMIT"
)

// PodVariables are set in the app's containers of a pod that has a sidecar. They say where the sidecar is. The sidecar
// itself ignores them.
var PodVariables = []string{"SIDECART_HTTP_URL", "SIDECART_GRPC_TARGET"}

// Variables of a sidecar's own container that say what it belongs to, for its status page.
const (
	PodNameVariable      = "SIDECART_POD_NAME"
	PodNamespaceVariable = "SIDECART_POD_NAMESPACE"
	CartStorageVariable  = "SIDECART_CARTSTORAGE"
)

// Environment are the variables of a process by their names. env has them as [os.Environ] does.
func Environment(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		m[name] = value
	}
	return m
}

// UnknownVariable is a variable of the environment that has our prefix and that no program of ours reads.
type UnknownVariable struct {
	Name string
	// Nearest is the known variable that was probably meant, or "" if none is similar.
	Nearest string
}

// Warning says what is wrong with the variable. The text does not have its name.
func (v UnknownVariable) Warning() string {
	const text = "environment variable is unknown and has no effect"
	if v.Nearest == "" {
		return text
	}
	return text + ": did you mean " + v.Nearest + "?"
}

// serviceLink is what Kubernetes puts into every pod of a namespace for a Service there. That of a Service called
// sidecart, or sidecart-anything, begins like a variable of ours.
var serviceLink = regexp.MustCompile(`^SIDECART(_[A-Z0-9]+)*(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=|^SIDECART(_[A-Z0-9]+)*_PORT=(tcp|udp|sctp)://`)

// UnknownVariables returns the variables of env that begin with [VariablePrefix], are not empty and are not known,
// sorted by name. A setting whose name is misspelt has no effect, so somebody should hear of it.
func UnknownVariables(env map[string]string, known []string) []UnknownVariable {
	var unknown []UnknownVariable
	for name, value := range env {
		if value == "" || !strings.HasPrefix(name, VariablePrefix) || serviceLink.MatchString(name+"="+value) ||
			slices.Contains(known, name) || slices.Contains(PodVariables, name) {
			continue
		}
		unknown = append(unknown, UnknownVariable{name, nearest(name, known)})
	}
	slices.SortFunc(unknown, func(a, b UnknownVariable) int { return cmp.Compare(a.Name, b.Name) })
	return unknown
}

// nearest returns the known name that differs from given in the fewest letters, and in a third of them at most.
func nearest(given string, known []string) string {
	given = strings.ToUpper(strings.TrimPrefix(given, VariablePrefix))
	best, least := "", len(given)/3+1
	for _, k := range known {
		name := strings.TrimPrefix(k, VariablePrefix)
		d := distance(given, name)
		if given != "" && (strings.HasPrefix(name, given+"_") || strings.HasPrefix(given, name+"_")) {
			d = min(d, 1) // as REDIS_PASSWORD is near to REDIS_PASSWORD_FILE
		}
		if d < least {
			best, least = k, d
		}
	}
	return best
}

// distance returns how many letters must be changed, inserted or deleted to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0] // of the row above, one to the left
		row[0] = i + 1
		for j := range len(b) {
			d := before
			if a[i] != b[j] {
				d++
			}
			before = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
