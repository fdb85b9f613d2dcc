package redis

import (
	"context"
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

//go:embed *.lua
var sources embed.FS

// join is the text of some .lua files, one after the other. The first are includes, each of one concept; the last is
// the script, which begins with its KEYS, ARGV and reply.
func join(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		text, err := sources.ReadFile(name + ".lua")
		if err != nil {
			panic(err) // the name of a file that is not there
		}
		b.Write(text)
	}
	return b.String()
}

// locking is what all scripts about locks begin with.
var locking = join("time", "arguments", "calls", "names", "cart", "parts", "leases", "life", "locks", "save", "wake")

var (
	commitScript    = acknowledging(join("registry", "quick") + locking + join("tombstones", "commit"))
	claimScript     = acknowledging(join("registry") + locking + join("claim"))
	abandonScript   = newScript(join("registry") + locking + join("abandon"))
	leaseScript     = acknowledging(join("registry") + locking + join("lease"))
	fenceScript     = acknowledging(join("fence"))
	instancesScript = newScript(join("instances"))
	pingScript      = acknowledging(join("ping"))
	probeScript     = newScript(join("probe"))
)

type script struct {
	source, sha string
	// confirms says that its answer may acknowledge something, which replicas must confirm where that is asked for.
	confirms bool
}

// newScript makes a script of keys without namespace.
func newScript(source string) script { return inNamespace("", source) }

// acknowledging is a script that confirms.
func acknowledging(source string) script {
	sc := newScript(source)
	sc.confirms = true
	return sc
}

// inNamespace makes a script. What it must know of the namespace is a constant in it, so that no call carries it; the
// characters of a namespace need no quoting in Lua.
func inNamespace(namespace, body string) script {
	source := namespaceLine(namespace) + body
	sum := sha1.Sum([]byte(source)) // the name by which Redis knows it; no secret
	return script{source: source, sha: hex.EncodeToString(sum[:])}
}

func namespaceLine(namespace string) string { return "local NAMESPACE = '" + namespace + "'\n" }

// scriptsOf are all scripts as they are in a namespace, by the sha that they have without; nil where there is none.
func scriptsOf(namespace string) map[string]script {
	if namespace == "" {
		return nil
	}
	all := map[string]script{}
	for _, sc := range []script{commitScript, claimScript, abandonScript, leaseScript, fenceScript, instancesScript, pingScript, probeScript} {
		in := inNamespace(namespace, strings.TrimPrefix(sc.source, namespaceLine("")))
		in.confirms = sc.confirms
		all[sc.sha] = in
	}
	return all
}

// once is a command that is sent once: a Cluster client would send others again after an error of the network, when the
// first may have done its work.
type once struct {
	*goredis.StringCmd
	// confirms is that of the script; confirmed is what the replicas said, nil where they were not asked.
	confirms  bool
	confirmed *confirmed
}

// NoRetry makes the client leave it at one attempt. Redirections are followed all the same: a node that redirects has
// not run the command.
func (*once) NoRetry() bool { return true }

// scriptArgs begins the arguments of a script; the script's own follow the keys.
func scriptArgs(sc script, room int, keys ...string) []any {
	args := make([]any, 3, 3+len(keys)+room)
	args[0], args[1], args[2] = "evalsha", sc.sha, len(keys)
	for _, k := range keys {
		args = append(args, k)
	}
	return args
}

// run runs a script in one round trip, or two where the server does not know it yet.
func (s *Store) run(ctx context.Context, sc script, args []any) (string, error) {
	if in, ok := s.scripts[sc.sha]; ok {
		sc, args[1] = in, in.sha
	}
	for {
		cmd := &once{StringCmd: goredis.NewStringCmd(ctx, args...), confirms: sc.confirms}
		err := s.client.Process(ctx, cmd)
		switch {
		case err == nil:
			return cmd.Val(), cmd.confirmed.err()
		case goredis.HasErrorPrefix(err, "NOSCRIPT") && args[0] == "evalsha":
			args[0], args[1] = "eval", sc.source
		case goredis.IsTryAgainError(err):
			// The slot is on its way to another node and the keys are on both: nothing was done, and it is over in a
			// moment.
			if err := pause(ctx, jitter(5*time.Millisecond, 25*time.Millisecond)); err != nil {
				return "", err
			}
		default:
			return "", err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func jitter(from, to time.Duration) time.Duration { return from + rand.N(to-from) }

// translate turns the driver's errors into those of package storage, with the cause kept, and says what was being done
// to what.
func (s *Store) translate(ctx context.Context, err error, doing string, keys ...cart.Key) error {
	if err == nil {
		return nil
	}
	for _, k := range keys {
		doing += " " + k.String()
	}
	deadline, bounded := ctx.Deadline()
	if errors.Is(err, goredis.Nil) { // no command of ours is answered with nothing, but the question for the master
		err = fmt.Errorf("the sentinels know no master called %q", s.master)
	}
	switch {
	case s.isClosed() || errors.Is(err, goredis.ErrClosed):
		return fmt.Errorf("redis: %s: %w", doing, storage.ErrClosed)
	case errors.Is(err, storage.ErrCorrupt), errors.Is(err, storage.ErrLockLost), errors.Is(err, storage.ErrLockUnknown):
		return fmt.Errorf("redis: %s: %w", doing, err)
	case ctx.Err() != nil:
		return fmt.Errorf("redis: %s: %w", doing, ctx.Err())
	case bounded && !time.Now().Before(deadline):
		// The socket's deadline is the context's, and may fire a moment earlier.
		return fmt.Errorf("redis: %s: %w", doing, context.DeadlineExceeded)
	case isCorrupt(err):
		return fmt.Errorf("redis: %s: %w: %w", doing, storage.ErrCorrupt, storage.Hide(err, s.secrets...))
	case isReply(err):
		return fmt.Errorf("redis: %s: %w: %w", doing, storage.ErrUnavailable, &storage.Refusal{Words: s.words(err)})
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// A deadline of the driver's own; the caller's context is alive and must not seem to have ended.
		text := errors.New(storage.Hide(err, s.secrets...).Error())
		return fmt.Errorf("redis: %s: %w: %w", doing, storage.ErrUnavailable, text)
	}
	return fmt.Errorf("redis: %s: %w: %w", doing, storage.ErrUnavailable, storage.Hide(err, s.secrets...))
}

// corrupt is how the scripts say that they looked at a key, and that it holds something else than it should; Redis puts
// its own words around that.
var corrupt = regexp.MustCompile(`(^|ERR |user_script:\d+: )CORRUPT `)

// isCorrupt reports whether the server says that a key holds something else than it should: the scripts say so, or it
// is of another type. All keys of a call are ours. Every other error of a script, whatever its cause, says nothing
// about what is stored.
func isCorrupt(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply) && (corrupt.MatchString(reply.Error()) || strings.Contains(reply.Error(), "WRONGTYPE "))
}

// isReply reports whether the server answered, with an error.
func isReply(err error) bool { return replyOf(err) != "" }

// replyOf is the error that the server answered with, "" where it did not.
func replyOf(err error) string {
	if farewell, ok := errors.AsType[*farewellError](err); ok {
		return farewell.words
	}
	var reply goredis.Error
	if errors.Is(err, goredis.Nil) || !errors.As(err, &reply) {
		return ""
	}
	return reply.Error()
}

// What the server adds to its words, and nobody needs or may read: where in a script it happened, the arguments of an
// unknown command, which hold names and documents of carts, and the name of the user, which comes from a secret file.
var additions = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`^ERR Error running script \(call to f_[0-9a-f]+\): (@?user_script: ?\d+: )*`), ""},
	{regexp.MustCompile(`,? script: [0-9a-f]{40}, on @user_script:\d+\.?$`), ""},
	{regexp.MustCompile(`(?s), with args beginning with:.*$`), ""},
	{regexp.MustCompile(`(?is)\buser .* has no permissions`), "the user has no permissions"},
	{regexp.MustCompile(`[\r\n]+`), " "},
}

// words are what the server said, without secrets and additions.
func (s *Store) words(err error) string {
	const most = 300
	text := storage.HideIn(replyOf(err), s.secrets...)
	for _, a := range additions {
		text = a.pattern.ReplaceAllString(text, a.instead)
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strings.TrimSpace(text)
}
