// Command images builds Sidecart's container images without a container engine: it compiles static programs, lays each
// into an OCI image of its own, and writes archives that `ctr images import`, `docker load` and
// `skopeo copy oci-archive:` read. The same commit, version and Go toolchain give the same digest on every machine.
//
// `make images` runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	root       string   // the checkout
	out        string   // folder for archives and bills of materials
	rootfs     string   // instead: folder for the files of one image
	repository string   // what image names begin with
	tag        string   // what they end with
	version    string   // of the programs
	platforms  []string // "linux/amd64" and so on
}

const usage = `Build container images of Sidecart's programs as OCI archives.

Usage:
  images [flags] [PROGRAM...]     all programs, unless some are named: %s

Times in the images are SOURCE_DATE_EPOCH, or that of the last commit.

Flags:
%s`

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var o options
	flags := pflag.NewFlagSet("images", pflag.ContinueOnError)
	flags.SetOutput(stdout)
	flags.StringVar(&o.root, "root", ".", "the checkout to build")
	flags.StringVar(&o.out, "out", "dist", "folder for the archives and their bills of materials")
	flags.StringVar(&o.repository, "repository", "sidecart", "what the names of the images begin with")
	flags.StringVar(&o.tag, "tag", "dev", "what the names of the images end with")
	flags.StringVar(&o.version, "version", "", "version of the programs (default what git describe says)")
	flags.StringSliceVar(&o.platforms, "platform", []string{"linux/amd64"}, "linux/amd64 or linux/arm64; several make one image for all of them")
	flags.StringVar(&o.rootfs, "rootfs", "", "write the files of the image of one program to this folder, and no archive")
	flags.Usage = func() { fmt.Fprintf(stdout, usage, strings.Join(names(), ", "), flags.FlagUsages()) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(flags.Args())
	if err != nil {
		return err
	}
	if err := o.complete(ctx); err != nil {
		return err
	}
	if o.rootfs != "" {
		if len(chosen) != 1 || len(o.platforms) != 1 {
			return errors.New("--rootfs: name one program and one platform")
		}
		return writeRootfs(ctx, &o, chosen[0])
	}
	created, err := sourceDate(ctx, o.root)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	for _, p := range chosen {
		ref, digest, err := writeArchive(ctx, &o, p, created)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(stdout, "%s %s %s\n", ref, digest, archiveName(p))
	}
	return nil
}

// complete checks the options and fills in those that are missing.
func (o *options) complete(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(o.root, "go.mod")); err != nil {
		return fmt.Errorf("--root: no go.mod in %s", o.root)
	}
	for _, platform := range o.platforms {
		if !slices.Contains(platforms, platform) {
			return fmt.Errorf("--platform: %q is none of %s", platform, strings.Join(platforms, ", "))
		}
	}
	// One order and no doubles, so that the order of the flags does not change the digest.
	slices.Sort(o.platforms)
	o.platforms = slices.Compact(o.platforms)
	if o.version == "" {
		version, err := output(ctx, o.root, "git", "describe", "--tags", "--always", "--dirty")
		if err != nil {
			return fmt.Errorf("--version is needed where git knows none: %w", err)
		}
		o.version = version
	}
	return nil
}

// sourceDate is the timestamp of everything in the images. With the time of the build, each build would differ.
func sourceDate(ctx context.Context, root string) (time.Time, error) {
	text, from := os.Getenv("SOURCE_DATE_EPOCH"), "SOURCE_DATE_EPOCH"
	if text == "" {
		var err error
		if text, err = output(ctx, root, "git", "log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is needed where git knows no commit: %w", err)
		}
		from = "the time of the commit"
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("%s: %q is no number of seconds since 1970", from, text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// output runs a command in dir and returns what it prints, without the white space around it.
func output(ctx context.Context, dir, command string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Dir = dir
	b, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %w: %s", command, args[0], err, strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(b)), err
}
