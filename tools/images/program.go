package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// program is a program that gets an image.
type program struct {
	name        string // also the last part of the image's name
	pkg         string // its package, from the root of the checkout
	title       string
	description string
}

var programs = []program{
	{"sidecar", "./cmd/sidecar", "Sidecart sidecar", "A cart store on localhost for the pod it runs in"},
	{"operator", "./cmd/operator", "Sidecart operator", "Configures Sidecart's sidecars, injects them and decides when they lock"},
	{"shop", "./examples/shop", "Sidecart demo shop", "A small shop that keeps its carts in the sidecar beside it"},
}

// platforms are those that images can be built for.
var platforms = []string{"linux/amd64", "linux/arm64"}

func names() []string {
	var all []string
	for _, p := range programs {
		all = append(all, p.name)
	}
	return all
}

// choose returns the programs named, or all of them, in the order of the table.
func choose(wanted []string) ([]program, error) {
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return nil, fmt.Errorf("no program is called %q: there are %s", name, strings.Join(names(), ", "))
		}
	}
	if len(wanted) == 0 {
		return programs, nil
	}
	return slices.DeleteFunc(slices.Clone(programs), func(p program) bool { return !slices.Contains(wanted, p.name) }), nil
}

// build compiles the program for the platform into dir and returns the file.
func build(ctx context.Context, o *options, p program, platform, dir string) (string, error) {
	goos, goarch, _ := strings.Cut(platform, "/")
	file := filepath.Join(dir, p.name+"-"+goos+"-"+goarch)
	args := []string{
		"build", "-trimpath", "-buildvcs=auto", "-ldflags", "-s -w -X main.version=" + o.version, "-o", file, p.pkg,
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = o.root
	cmd.Stderr = os.Stderr
	// Settings in the environment of the caller must not reach the program.
	cmd.Env = append(os.Environ(),
		"CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go build %s for %s: %w", p.pkg, platform, err)
	}
	return file, nil
}
