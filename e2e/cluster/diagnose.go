package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Diagnose writes what one wants to know after a failure: nodes, pods, events, the logs of pods that are not ready, and
// the ends of all other logs.
func (c *Cluster) Diagnose(ctx context.Context, w io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes", "--output=wide"},
		{"get", "pods", "--all-namespaces", "--output=wide"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
		{"describe", "pods", "--all-namespaces"},
	} {
		fmt.Fprintf(w, "=== kubectl %s\n", args)
		out, err := c.Kubectl(ctx, append(args, "--request-timeout=5s")...)
		fmt.Fprint(w, out)
		if err != nil {
			fmt.Fprintln(w, err)
		}
	}
	pods, _ := filepath.Glob(c.folder("node*", "var/log/pods/*/*/*.log"))
	for _, path := range pods {
		c.writeTail(w, path, 60)
	}
	fmt.Fprint(w, c.logTails(60))
}

// logTails are the last lines of each program's log.
func (c *Cluster) logTails(lines int) string {
	var b bytes.Buffer
	logs, _ := filepath.Glob(c.folder("*", "log/*.log"))
	for _, path := range append(logs, filepath.Join(c.dir, "supervisor.log")) {
		c.writeTail(&b, path, lines)
	}
	return b.String()
}

func (c *Cluster) writeTail(w io.Writer, path string, lines int) {
	text, err := os.ReadFile(path)
	if err != nil || len(text) == 0 {
		return
	}
	name, _ := filepath.Rel(c.dir, path)
	all := bytes.SplitAfter(text, []byte("\n"))
	fmt.Fprintf(w, "=== %s (%d lines)\n", name, len(all)-1)
	_, _ = w.Write(bytes.Join(all[max(0, len(all)-lines-1):], nil))
	fmt.Fprintln(w)
}
