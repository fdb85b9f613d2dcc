package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/sidecart/sidecart/internal/config"
)

const helpHead = `Sidecart serves carts on localhost, over gRPC and over HTTP and JSON.

Usage:
  sidecar [flags]         serve until SIGTERM or SIGINT
  sidecar validate FILE   say everything that is wrong with a configuration file
  sidecar move [flags]    move all carts from the backend that moveFrom of the
                          configuration file names, and say how it went
  sidecar observe --pattern KEYS [--poll PAUSE] [--for TIME] [flags]
                          count the updates that a program loses which keeps its
                          carts in Redis under these keys; write nothing
  sidecar version         say the version, as --version does

Every flag has an environment variable, named in brackets. Flags win over the
environment, the environment over the file, the file over the defaults. The
file is watched: a change is taken over without a restart, except of listeners;
SIGHUP has it read at once.

Configuration:
  --config FILE
      configuration file of kind SidecarConfig [SIDECART_CONFIG]
  --last-good FILE
      configuration file that worked before: where the other one is wrong at the
      start, or its backend does not answer, the sidecar starts on this one and
      says so [SIDECART_LAST_GOOD]
`

const helpTail = `
The variables CART_CACHE_LOCKING (true or false) and CART_LOCK_TIMEOUT (in
seconds) stand for --locking and --lock-timeout where no other variable or
flag says so.

Examples:
  sidecar
      keep carts in the file sidecart.db
  sidecar --backend redis --redis-address 127.0.0.1:6379
      keep them in Redis, with locking, for any number of replicas
  sidecar --config /etc/sidecart/sidecar.yaml --log-format json
      serve by a file and follow its changes
  CART_CACHE_LOCKING=true CART_LOCK_TIMEOUT=5 sidecar --backend redis --redis-address redis:6379
      with the settings of the replaced system

Exit codes:
  0  stopped gracefully; move left nothing
  1  serving failed or did not stop in time; validate found problems; move left
     carts
  2  the command line or the configuration is wrong
`

// printHelp writes the help, with the present defaults.
func printHelp(w io.Writer) {
	defaults := config.NewBuilder()
	var b strings.Builder
	b.WriteString(helpHead)
	for _, g := range groups {
		fmt.Fprintf(&b, "\n%s:\n", g.title)
		for _, s := range g.settings {
			fmt.Fprintf(&b, "  --%s", s.flag)
			if s.value != "" {
				b.WriteString(" " + s.value)
			}
			b.WriteString("\n      " + s.usage)
			if d := defaults.Text(s.paths[0]); d != "" && s.value != "" {
				fmt.Fprintf(&b, " (default %s)", d)
			}
			fmt.Fprintf(&b, " [%s]\n", s.env())
		}
	}
	b.WriteString(helpTail)
	_, _ = io.WriteString(w, b.String())
}
