package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set with -ldflags "-X main.version=v1.2.3".
var version string

// versionName returns the version of the build: that of the linker flags, or else the one that the toolchain recorded.
func versionName() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" && b.Main.Version != "(devel)" {
		return b.Main.Version
	}
	return "devel"
}

// versionLine is what `sidecar version` prints.
func versionLine() string {
	commit := "unknown"
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	return fmt.Sprintf("sidecar %s (commit %s, %s, %s/%s)", versionName(), commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
