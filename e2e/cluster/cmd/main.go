// Command cmd runs the cluster of the tests by hand, to look around in it. A cluster that was brought up stays until it
// is brought down.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sidecart/sidecart/e2e/cluster"
)

const usage = `go run ./e2e/cluster/cmd COMMAND

  up [NODES]           start a cluster of so many nodes (2) and print how long it took
  down                 stop it; nothing is left
  exec COMMAND...      run a command in its network, with kubectl and helm in the PATH
  shell                the same with your shell
  load ARCHIVE...      give image archives to all nodes
  kill-node N          pull the plug of a node
  start-node N         plug it in again, and wait until it is Ready
  partition N          cut a node off from all others
  heal N               end that
  stop-apiserver       stop the API server
  start-apiserver      start it again
  diagnose             nodes, pods, events and the ends of all logs
  dir                  the folder with its logs, kubeconfig and disks

  redis-image NAME FILE   write an image of this machine's redis-server; no cluster is needed
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode()) // it has said why itself
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("no command\n\n" + usage)
	}
	command, args := args[0], args[1:]
	switch command {
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	case "up":
		return up(ctx, args)
	case "redis-image":
		return redisImage(ctx, args)
	}
	c, err := attach()
	if err != nil {
		return err
	}
	switch command {
	case "down":
		return errors.Join(c.Stop(), os.Remove(record()))
	case "exec":
		if len(args) == 0 {
			return errors.New("exec needs a command")
		}
		return interact(c, args...)
	case "shell":
		shell := os.Getenv("SHELL")
		if shell == "" {
			shell = "/bin/sh"
		}
		return interact(c, shell)
	case "load":
		return c.Load(ctx, args...)
	case "stop-apiserver":
		return c.StopAPIServer(ctx)
	case "start-apiserver":
		return c.StartAPIServer(ctx)
	case "diagnose":
		c.Diagnose(ctx, os.Stdout)
		return nil
	case "dir":
		fmt.Println(c.Dir())
		return nil
	}
	do, ok := map[string]func(context.Context, int) error{
		"kill-node": c.KillNode, "start-node": c.StartNode, "partition": c.Partition, "heal": c.Heal,
	}[command]
	if !ok {
		return fmt.Errorf("no command %q\n\n%s", command, usage)
	}
	n, err := number(args)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return do(ctx, n)
}

// redisImage writes the image that the tests use, for use without a registry.
func redisImage(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("redis-image: give a name such as sidecart/redis:dev, and a file")
	}
	image := cluster.Redis(args[0])
	for file := range image.Files {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("redis-image: %w: install it with apt-get install redis-server", err)
		}
	}
	if err := image.Build(ctx, args[1]); err != nil {
		return err
	}
	fmt.Println(args[0], args[1])
	return nil
}

func number(args []string) (int, error) {
	if len(args) != 1 {
		return 0, errors.New("give one number, such as 2")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is not a number from 1 on", args[0])
	}
	return n, nil
}

func up(ctx context.Context, args []string) error {
	if c, err := attach(); err == nil {
		return fmt.Errorf("a cluster is up in %s: bring it down first", c.Dir())
	}
	options := cluster.Options{Detached: true}
	if len(args) > 0 {
		n, err := number(args)
		if err != nil {
			return fmt.Errorf("up: %w", err)
		}
		options.Nodes = n
	}
	started := time.Now()
	c, err := cluster.New(ctx, options)
	if err != nil {
		return err
	}
	if err := os.WriteFile(record(), []byte(c.Dir()), 0o644); err != nil {
		return errors.Join(err, c.Stop())
	}
	fmt.Printf("up after %v; try: go run ./e2e/cluster/cmd exec kubectl get pods --all-namespaces\n", time.Since(started).Round(100*time.Millisecond))
	return nil
}

// record is the file that names the folder of the cluster that is up.
func record() string { return filepath.Join(cluster.Root(), "up") }

func attach() (*cluster.Cluster, error) {
	dir, err := os.ReadFile(record())
	if err != nil {
		return nil, errors.New("no cluster is up")
	}
	return cluster.Attach(strings.TrimSpace(string(dir)))
}

// interact runs a command on this terminal. Ctrl-C reaches the command directly, which decides how to end.
func interact(c *cluster.Cluster, args ...string) error {
	cmd := c.Command(context.Background(), args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
