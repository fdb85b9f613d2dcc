package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"os"
	"path/filepath"
	"time"
)

const folderPrefix = "sidecart-cluster-"

// pid is the first process of a machine, or 0 if it does not run.
func (c *Cluster) pid(machine string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pids[machine]
}

func (c *Cluster) boot(ctx context.Context, machine string) error {
	var pid int
	if err := call(ctx, c.supervisor, "Supervisor.Boot", machine, &pid); err != nil {
		return fmt.Errorf("boot %s: %w", machine, err)
	}
	c.mu.Lock()
	c.pids[machine] = pid
	c.mu.Unlock()
	// It answers once it is furnished.
	if err := c.callMachine(ctx, machine, "Running", "", new(bool)); err != nil {
		log, _ := os.ReadFile(c.folder(machine, "log", "machine.log"))
		return fmt.Errorf("boot %s: %w: %s", machine, err, log)
	}
	return nil
}

func (c *Cluster) halt(ctx context.Context, machine string) error {
	c.mu.Lock()
	delete(c.pids, machine)
	c.mu.Unlock()
	return call(ctx, c.supervisor, "Supervisor.Halt", machine, nil)
}

// start starts a program in a machine.
func (c *Cluster) start(machine, name string, args ...string) error {
	err := c.callMachine(context.Background(), machine, "Start", Program{Name: name, Args: args}, nil)
	if err != nil {
		return fmt.Errorf("start %s on %s: %w", name, machine, err)
	}
	return nil
}

// running is an error if one of those programs does not run.
func (c *Cluster) running(machine string, names ...string) error {
	for _, name := range names {
		var running bool
		if err := c.callMachine(context.Background(), machine, "Running", name, &running); err != nil {
			return err
		}
		if !running {
			return fmt.Errorf("%s on %s has ended", name, machine)
		}
	}
	return nil
}

// callMachine calls a method of a machine's first process.
func (c *Cluster) callMachine(ctx context.Context, machine, method string, args, reply any) error {
	if c.pid(machine) == 0 {
		return fmt.Errorf("%s is down", machine)
	}
	client, err := rpc.Dial("unix", c.folder(machine, "machine.sock"))
	if err != nil {
		return err
	}
	defer client.Close()
	return call(ctx, client, "Machine."+method, args, reply)
}

func call(ctx context.Context, client *rpc.Client, method string, args, reply any) error {
	if reply == nil {
		reply = new(struct{})
	}
	select {
	case done := <-client.Go(method, args, reply, make(chan *rpc.Call, 1)).Done:
		return done.Error
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// Poll calls f until it succeeds. It fails with the last error of f when ctx ends or, if hopeless is given, when that
// says why waiting is pointless.
func Poll(ctx context.Context, f func(context.Context) error, hopeless func() error) error {
	var last error
	for {
		began := time.Now()
		err := f(ctx)
		if err == nil {
			return nil
		}
		// An error that the end of the context caused says nothing.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if hopeless != nil {
			if err := hopeless(); err != nil {
				return errors.Join(err, last)
			}
		}
		pause := time.NewTimer(pauseAfter(time.Since(began)))
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), last)
		case <-pause.C:
		}
	}
}

// pauseAfter is the time between two looks of Poll. A look that runs kubectl costs a third of a second of a processor
// that the cluster needs, so that a long look is followed by a long pause: at most a fourth of the time goes into
// looking.
func pauseAfter(look time.Duration) time.Duration {
	return min(max(3*look, 50*time.Millisecond), time.Second)
}

// lockFolder marks a folder as that of a running cluster. The lock file is never there without being locked, since
// sweep would take that for a leftover.
func lockFolder(dir string) (*os.File, error) {
	lock, err := os.Create(filepath.Join(dir, "lock.new"))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(tryLock(lock), os.Rename(lock.Name(), filepath.Join(dir, "lock"))); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return lock, nil
}

// sweep removes what is left of clusters whose supervisor was killed: the kernel ended their machines, but nobody
// removed their folders and cgroups.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	for _, dir := range dirs {
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue // just being made
		}
		if tryLock(lock) == nil && removeCgroups(cgroupName(dir, "*")) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = lock.Close()
	}
}
