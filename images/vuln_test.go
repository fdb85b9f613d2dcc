package images

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The check for vulnerabilities passes, fails, or says that it has checked nothing. For a release, the last is a
// failure.
func TestVuln(t *testing.T) {
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	const unreachable = `echo 'govulncheck: fetching vulnerabilities: Get "https://vuln.go.dev/index/modules.json.gz": dial tcp: no route'; exit 1`
	for _, r := range []struct {
		name, govulncheck, release string
		code                       int
		says                       string
	}{
		{"nothing found", "echo No vulnerabilities found.", "", 0, "No vulnerabilities found."},
		{"nothing found in a release", "echo No vulnerabilities found.", "1", 0, "No vulnerabilities found."},
		{"something found", "echo GO-2024-0001; exit 3", "", 1, "GO-2024-0001"},
		{"unreachable", unreachable, "", 0, "NOT CHECKED"},
		{"unreachable in a release", unreachable, "1", 1, "a release must be checked"},
	} {
		t.Run(r.name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "govulncheck")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+r.govulncheck+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), filepath.Join(root, "hack", "vuln.sh"))
			cmd.Env = append(os.Environ(), "GOVULNCHECK="+program, "RELEASE="+r.release)
			out, err := cmd.CombinedOutput()
			code := 0
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != r.code || !strings.Contains(string(out), r.says) {
				t.Errorf("exit code %d, want %d, and %q in\n%s", code, r.code, r.says, out)
			}
		})
	}
}
