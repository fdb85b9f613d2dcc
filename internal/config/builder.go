package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Builder puts a configuration together from its layers. Feed it in the order of rising precedence: the file first,
// then settings of the environment, then those of flags. It collects every problem on the way.
//
// A layer that names a backend type drops the sections of other types that lower layers gave. In backend the type
// Database without a section stands for the default database.
type Builder struct {
	config   *Config
	given    map[string]bool
	sources  map[string]string // path → "--ttl" or "SIDECART_TTL"
	rules    []func(*Config) Problems
	problems Problems
}

// NewBuilder starts from [Default].
func NewBuilder() *Builder {
	return &Builder{config: Default(), given: map[string]bool{}, sources: map[string]string{}}
}

// File lays a configuration file over the lower layers. A password in it is refused.
func (b *Builder) File(data []byte) {
	d := &decoder{given: b.given}
	d.file(data, b.config)
	b.problems = append(b.problems, d.problems...)
	if len(d.given) == 0 && len(d.problems) > 0 {
		return // the file is not even a mapping, so missing fields are not worth a report
	}
	for _, path := range []string{"apiVersion", "kind"} {
		if !b.given[path] && !b.problems.has(path) {
			value, _ := b.at(path)
			b.problem(path, "is missing: must be %s", value)
		}
	}
	for path, back := range b.config.backends() {
		if back.Database != nil && back.Database.URL.HasPassword() {
			b.problem(path+".database.url", "holds a password: name a file in passwordFile, or the file of the whole URL in urlFile")
		}
	}
}

// Set lays one value over the lower layers. Path is that of a field ("locking.mode"). Text is its value as people write
// it in a flag: lists are separated by commas, and the case of fixed names does not matter. Source is where it comes
// from ("--locking"); problems name it. Set panics if there is no such field.
func (b *Builder) Set(path, text, source string) {
	v, ok := b.at(path)
	if !ok {
		panic("config: no field " + path)
	}
	b.given[path] = true
	b.sources[path] = source
	switch value := v.Interface().(type) {
	case []string:
		v.Set(reflect.ValueOf(splitList(text)))
	case choice:
		v.SetString(text)
		for _, c := range value.choices() {
			if strings.EqualFold(c, text) {
				v.SetString(c)
			}
		}
	default:
		if err := setText(v, text); err != nil {
			b.problem(source, "%s", err)
		}
	}
	switch path {
	case "backend.type":
		chooseBackend(&b.config.Backend)
		if back := &b.config.Backend; back.Type == BackendDatabase && back.Database == nil {
			back.Database = &Database{URL: DefaultDatabaseURL}
		}
	case "criticalBackend.type":
		chooseBackend(b.config.CriticalBackend)
	case "backend.database.url":
		b.config.Backend.Database.URLFile = "" // set by a lower layer and now replaced
	case "criticalBackend.database.url":
		b.config.CriticalBackend.Database.URLFile = ""
	}
}

// Refuse records a problem that the caller found.
func (b *Builder) Refuse(path, message string) { b.problem(path, "%s", message) }

// Rule adds a check that runs before those of [Config.Validate]. If it reports a section, no more problems within that
// section are reported.
func (b *Builder) Rule(rule func(*Config) Problems) { b.rules = append(b.rules, rule) }

// Build returns the configuration, or an error that is [Problems].
func (b *Builder) Build() (*Config, error) {
	b.derive()
	c := b.config
	problems := b.problems
	for _, rule := range b.rules {
		problems = append(problems, rule(c)...)
	}
	for _, p := range c.Validate() {
		if problems.has(p.Path) {
			continue // the given value could not be read, so this problem is about the default
		}
		if s, ok := b.sources[p.Path]; ok {
			p.Message += " (set by " + s + ")"
			if problems.has(s) {
				continue
			}
		}
		problems = append(problems, p)
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// derive computes the defaults that depend on what was given, so that setting one number never breaks a rule about a
// number that was not set:
//
//   - the request timeout is the wait for a lock and a second for the work;
//   - with only the request timeout given, the wait takes at most 5/6 of it,
//     which is the proportion of the defaults;
//   - the lease is no shorter than the write timeout.
func (b *Builder) derive() {
	l, t := &b.config.Locking, &b.config.Timeouts
	wait, request := b.given["locking.waitTimeout"], b.given["timeouts.request"]
	switch {
	case !request:
		t.Request = RequestTimeout(l.WaitTimeout)
	case !wait && t.Request > 0:
		l.WaitTimeout = min(l.WaitTimeout, t.Request/6*5)
	}
	if !b.given["locking.leaseDuration"] {
		l.LeaseDuration = max(l.LeaseDuration, t.Write)
	}
}

// chooseBackend keeps only the section of the chosen type.
func chooseBackend(back *Backend) {
	sections := reflect.ValueOf(back).Elem()
	for _, s := range back.sections() {
		if s.belongsTo != back.Type {
			f, _ := fieldNamed(sections, s.name)
			f.SetZero()
		}
	}
}

// Text returns the present value at path, as people write it, or "" if there is none.
func (b *Builder) Text(path string) string {
	v, ok := field(b.config, path, false)
	switch {
	case !ok:
		return ""
	case v.Kind() == reflect.Slice:
		return strings.Join(v.Interface().([]string), ",")
	}
	return fmt.Sprint(v.Interface())
}

// at returns the field at path, and makes the sections on the way.
func (b *Builder) at(path string) (reflect.Value, bool) { return field(b.config, path, true) }

func field(c *Config, path string, create bool) (reflect.Value, bool) {
	v := reflect.ValueOf(c).Elem()
	for name := range strings.SplitSeq(path, ".") {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !create {
					return reflect.Value{}, false
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		f, ok := fieldNamed(v, name)
		if !ok {
			return reflect.Value{}, false
		}
		v = f
	}
	return v, true
}

func (b *Builder) problem(path, format string, args ...any) {
	b.problems = append(b.problems, Problem{path, fmt.Sprintf(format, args...)})
}

func splitList(text string) []string {
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return slices.DeleteFunc(parts, func(s string) bool { return s == "" })
}
