package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/sidecart/sidecart/internal/config"
	"github.com/sidecart/sidecart/internal/storage/open"
)

// Exit codes, as the documentation of this command promises them.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Run is the whole program: it does what args ask for and returns the exit code. The end of ctx stops it as gracefully
// as SIGTERM does.
func Run(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	switch command {
	case "":
		signals := make(chan os.Signal, 4)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		defer signal.Stop(signals)
		return runServe(ctx, args, config.Environment(env), signals, stdout, stderr)
	case "validate":
		return runValidate(args, stdout, stderr)
	case "move":
		return runMove(ctx, args, config.Environment(env), stdout, stderr)
	case "observe":
		return runObserve(ctx, args, config.Environment(env), stdout, stderr)
	case "version":
		if len(args) > 0 {
			return usage(stderr, "version takes no arguments")
		}
		_, _ = fmt.Fprintln(stdout, versionLine())
		return exitOK
	case "help":
		printHelp(stdout)
		return exitOK
	}
	return usage(stderr, fmt.Sprintf("%q is no command: there are validate, move, observe and version", wordOf(command)))
}

// wordOf returns the first word of an unexpected argument, for an error. The rest is left out, since it may be the URL
// of a database with its password.
func wordOf(arg string) string {
	if i := strings.IndexAny(arg, "=:@"); i >= 0 {
		return arg[:i] + "…"
	}
	return arg
}

// flagError says what is wrong with the command line, without the values of flags. The parser's own errors quote whole
// arguments.
func flagError(err error) string {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok && e.GetSpecifiedShortnames() != "" {
		// "-database-url=…" is taken for many short flags.
		return fmt.Sprintf("unknown flag -%s: flags begin with two dashes", wordOf(e.GetSpecifiedShortnames()))
	}
	if e, ok := errors.AsType[*pflag.InvalidSyntaxError](err); ok {
		return "bad flag syntax: " + wordOf(e.GetSpecifiedFlag())
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return fmt.Sprintf("--%s takes true or false", e.GetFlag().Name)
	}
	return err.Error()
}

func usage(stderr io.Writer, message string) int {
	_, _ = fmt.Fprintf(stderr, "sidecar: %s\nsidecar --help says what is possible.\n", message)
	return exitUsage
}

func runServe(ctx context.Context, args []string, env map[string]string, signals <-chan os.Signal, stdout, stderr io.Writer) int {
	l, code, ended := commandLine(args, env, "neither a flag nor, at this place, a command", stdout, stderr)
	switch {
	case ended:
		return code
	case l.version:
		_, _ = fmt.Fprintln(stdout, versionLine())
		return exitOK
	}
	return serve(ctx, l, signals, stderr)
}

// commandLine reads the flags of a command, and those that more adds. If it has printed help or an error, ended is true
// and the command ends with code. An argument that is no flag is called unknown.
func commandLine(args []string, env map[string]string, unknown string, stdout, stderr io.Writer, more ...func(*pflag.FlagSet)) (l *layers, code int, ended bool) {
	l, rest, err := parseFlags(args, env, more...)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		printHelp(stdout)
		return nil, exitOK, true
	case err != nil:
		return nil, usage(stderr, flagError(err)), true
	case len(rest) > 0:
		return nil, usage(stderr, fmt.Sprintf("%q is %s", wordOf(rest[0]), unknown)), true
	}
	return l, exitOK, false
}

// lastWords prints why the sidecar does not start. Its last line has every problem, since Kubernetes shows the end of
// what a container wrote.
func lastWords(stderr io.Writer, err error) {
	problems, wrong := errors.AsType[config.Problems](err)
	switch {
	case !wrong:
		_, _ = fmt.Fprintf(stderr, "sidecar: cannot start: %s\n", oneLine(err.Error()))
	case len(problems) == 1:
		_, _ = fmt.Fprintf(stderr, "sidecar: the configuration is wrong: %s\n", oneLine(problems[0].String()))
	default:
		lines := make([]string, len(problems))
		for i, p := range problems {
			lines[i] = oneLine(p.String())
		}
		_, _ = fmt.Fprintf(stderr, "sidecar: the configuration is wrong:\n%s\nsidecar: the configuration has %d problems: %s\n",
			strings.Join(lines, "\n"), len(lines), strings.Join(lines, "; "))
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// runValidate prints everything that is wrong with a file, one problem per line.
func runValidate(args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && (args[0] == "--help" || args[0] == "-h") {
		printHelp(stdout)
		return exitOK
	}
	if len(args) != 1 {
		return usage(stderr, "validate takes one argument, the file")
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "sidecar: %s\n", err)
		return exitFailed
	}
	b := config.NewBuilder()
	b.Rule(open.Check)
	b.File(data)
	c, err := b.Build()
	if err != nil {
		_, _ = fmt.Fprintln(stdout, err)
		return exitFailed
	}
	critical := ""
	if c.CriticalBackend != nil {
		critical = fmt.Sprintf(", checkouts in %s", c.CriticalBackend.Type)
	}
	_, _ = fmt.Fprintf(stdout, "%s: ok, generation %d, backend %s%s, locking %s\n", args[0], c.Generation, c.Backend.Type, critical, c.Locking.Mode)
	return exitOK
}
