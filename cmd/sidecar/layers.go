package main

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage/open"
)

// layers are the sources of a configuration: a file, over it the environment, and over that flags. Each load reads the
// file anew.
type layers struct {
	file     string // path, "" for none
	lastGood string // path of the file that worked last, "" for none
	env      map[string]string
	flags    *pflag.FlagSet

	version bool // only the version is asked for
}

// text is the value of any flag. The configuration interprets it, so that flags, variables and the file are read by the
// same rules.
type text struct {
	value string
	of    *setting
}

func (t *text) String() string { return t.value }
func (t *text) Type() string   { return t.of.value }
func (t *text) Set(s string) error {
	if t.of.list && t.value != "" {
		s = t.value + "," + s
	}
	t.value = s
	return nil
}

// parseFlags reads the flags of serving, and those that a command has in addition. If help is asked for, the error is
// pflag.ErrHelp.
func parseFlags(args []string, env map[string]string, more ...func(*pflag.FlagSet)) (*layers, []string, error) {
	flags := pflag.NewFlagSet("sidecar", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	l := &layers{env: env, flags: flags}
	flags.StringVar(&l.file, "config", env["SIDECART_CONFIG"], "")
	flags.StringVar(&l.lastGood, "last-good", env[config.LastGoodVariable], "")
	flags.BoolVar(&l.version, "version", false, "")
	for g := range groups {
		for i := range groups[g].settings {
			s := &groups[g].settings[i]
			f := flags.VarPF(&text{of: s}, s.flag, "", s.usage)
			if s.value == "" {
				f.NoOptDefVal = "true"
			}
		}
	}
	for _, add := range more {
		add(flags)
	}
	err := flags.Parse(args)
	return l, flags.Args(), err
}

// load puts the configuration together. The error is [config.Problems].
func (l *layers) load() (*config.Config, error) { return l.loadFrom(l.file) }

// loadLastGood loads the file that worked last. It returns nil if the file is missing or not valid.
func (l *layers) loadLastGood() *config.Config {
	if l.lastGood == "" {
		return nil
	}
	c, err := l.loadFrom(l.lastGood)
	if err != nil {
		return nil
	}
	return c
}

func (l *layers) loadFrom(file string) (*config.Config, error) {
	b := config.NewBuilder()
	b.Rule(open.Check)
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, config.Problems{{Path: "file", Message: err.Error()}}
		}
		b.File(data)
	}
	l.setFromEnv(b)
	for g := range groups {
		for i := range groups[g].settings {
			s := &groups[g].settings[i]
			if f := l.flags.Lookup(s.flag); f.Changed {
				set(b, s, f.Value.String(), "--"+s.flag)
			}
		}
	}
	return b.Build()
}

func set(b *config.Builder, s *setting, value, source string) {
	for _, path := range s.paths {
		b.Set(path, value, source)
	}
}

// setFromEnv lays the environment over the file. An empty variable counts as not set. The two variables of the replaced
// system count if our own variable for the same setting is not set.
func (l *layers) setFromEnv(b *config.Builder) {
	if v := l.env["CART_CACHE_LOCKING"]; v != "" && !l.has("SIDECART_LOCKING") {
		switch strings.ToLower(v) {
		case "true", "1", "on", "yes":
			b.Set("locking.mode", string(config.LockingEnabled), "CART_CACHE_LOCKING")
		case "false", "0", "off", "no":
			b.Set("locking.mode", string(config.LockingDisabled), "CART_CACHE_LOCKING")
		default:
			b.Refuse("CART_CACHE_LOCKING", fmt.Sprintf("%q is no boolean: write true or false", v))
		}
	}
	if v := l.env["CART_LOCK_TIMEOUT"]; v != "" && !l.has("SIDECART_LOCK_TIMEOUT") && (!l.has("SIDECART_WAIT_TIMEOUT") || !l.has("SIDECART_LEASE_DURATION")) {
		seconds, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(seconds) || seconds <= 0 || seconds > (24*time.Hour).Seconds() {
			b.Refuse("CART_LOCK_TIMEOUT", fmt.Sprintf("%q is no number of seconds: write for example 5", v))
		} else {
			d := config.Duration(seconds * float64(time.Second)).String()
			for _, path := range []string{"locking.waitTimeout", "locking.leaseDuration"} {
				b.Set(path, d, "CART_LOCK_TIMEOUT")
			}
		}
	}
	for g := range groups {
		for i := range groups[g].settings {
			s := &groups[g].settings[i]
			if v := l.env[s.env()]; v != "" {
				set(b, s, v, s.env())
			}
		}
	}
}

// warnVariables logs variables whose names are misspelt. It does not log their values, which may be passwords.
func (l *layers) warnVariables(log *slog.Logger) {
	known := []string{"SIDECART_CONFIG", config.LastGoodVariable, config.MemoryLimitVariable, config.PodNameVariable, config.PodNamespaceVariable, config.CartStorageVariable}
	for _, g := range groups {
		for i := range g.settings {
			known = append(known, g.settings[i].env())
		}
	}
	for _, v := range config.UnknownVariables(l.env, known) {
		log.Warn(v.Warning(), "variable", v.Name)
	}
}

func (l *layers) has(name string) bool { return l.env[name] != "" }
