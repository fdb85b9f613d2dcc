package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/storage"
)

// confirmation has replicas confirm what a script wrote, before it is acknowledged. It is a hook of the client of one
// server: it sends WAIT behind the script, over the same connection, since WAIT is about what its own connection did.
// So redirections of a Cluster need no special case: WAIT asks the node that ran the script.
//
// WAIT also covers what others wrote before. So an answer that rests on somebody else's change, such as "it is so
// already", is as safe as one about an own change.
type confirmation struct {
	// patient is the same client with a read timeout that allows for the script and for the replicas.
	patient *goredis.Client
	// replicas is how many must confirm, and within which time.
	replicas int
	within   time.Duration
}

// confirm installs the hook on a client that belongs to one server.
func (c *Config) confirm(node *goredis.Client) {
	if c.MinReplicas == 0 {
		return
	}
	within := c.timeouts().write
	node.AddHook(confirmation{patient: node.WithTimeout(c.timeouts().read + within), replicas: c.MinReplicas, within: within})
}

// DialHook changes nothing.
func (confirmation) DialHook(goredis.DialHook) goredis.DialHook { return nil }

// ProcessHook is for a script that is sent by itself.
func (c confirmation) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		if !asksForConfirmation(cmd) {
			return next(ctx, cmd)
		}
		c.send(ctx, []goredis.Cmder{cmd})
		return cmd.Err()
	}
}

// ProcessPipelineHook is for a script that follows a redirection: ASKING stands before it.
func (c confirmation) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		if last := cmds[len(cmds)-1]; asksForConfirmation(last) {
			c.send(ctx, cmds)
			return last.Err()
		}
		return next(ctx, cmds)
	}
}

// send sends the commands and then WAIT, whose answer it notes with the last of them.
func (c confirmation) send(ctx context.Context, cmds []goredis.Cmder) {
	pipe := c.patient.Pipeline()
	for _, cmd := range cmds {
		_ = pipe.Process(ctx, cmd)
	}
	script := cmds[len(cmds)-1].(*once)
	script.confirmed = &confirmed{IntCmd: goredis.NewIntCmd(ctx, "wait", c.replicas, millis(c.within)), confirmation: c}
	_ = pipe.Process(ctx, script.confirmed.IntCmd)
	_, _ = pipe.Exec(ctx) // each command has its own error
}

func asksForConfirmation(cmd goredis.Cmder) bool {
	script, ok := cmd.(*once)
	return ok && script.confirms
}

// confirmed is the answer to WAIT.
type confirmed struct {
	*goredis.IntCmd
	confirmation
}

// err returns nil if enough replicas confirmed, or none had to.
func (c *confirmed) err() error {
	if c == nil {
		return nil
	}
	n, err := c.Result()
	if err == nil && n >= int64(c.replicas) {
		return nil
	}
	return &unconfirmedError{n, c.replicas, c.within, err}
}

// unconfirmedError says that a script ran and that too few replicas confirmed it: a failover may undo what it did. It
// is not a [storage.Refusal], which would say that nothing was changed.
type unconfirmedError struct {
	got    int64
	want   int
	within time.Duration
	cause  error
}

func (e *unconfirmedError) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("it is not known whether %d replicas confirmed it: %v", e.want, e.cause)
	}
	return fmt.Sprintf("%d of the %d replicas that minReplicas asks for confirmed it within %v", e.got, e.want, e.within)
}

func isUnconfirmed(err error) bool {
	_, ok := errors.AsType[*unconfirmedError](err)
	return ok
}

// wouldNotConfirm turns the [unconfirmedError] of a probe into a refusal: the probe's own change does not matter, and
// the backend cannot do what a change needs.
func (s *Store) wouldNotConfirm(err error) error {
	u, ok := errors.AsType[*unconfirmedError](err)
	switch {
	case !ok:
		return err
	case isReply(u.cause):
		return u.cause
	case u.cause != nil:
		return err
	}
	return &storage.Refusal{Words: fmt.Sprintf(
		"a change would not be acknowledged: minReplicas asks for %d replicas that confirm it, and %d did within %v", u.want, u.got, u.within)}
}
