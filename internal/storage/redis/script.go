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

// join returns the text of some .lua files, one after the other. The first are includes, each of one concept. The last
// is the script, which begins with its KEYS, ARGV and reply.
func join(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		text, err := sources.ReadFile(name + ".lua")
		if err != nil {
			panic(err) // a name without a file is a mistake in this program
		}
		b.Write(text)
	}
	return b.String()
}

// locking are the includes of all scripts about locks.
var locking = join("time", "arguments", "calls", "names", "cart", "parts", "leases", "life", "locks", "save", "wake")

var (
	commitScript    = acknowledging(join("watch", "registry", "quick") + locking + join("tombstones", "commit"))
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
	// confirms says that its answer may acknowledge something. Replicas must confirm that if the configuration asks for
	// it.
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

// inNamespace makes a script for a namespace, which is a constant in it, so that no call carries it. The characters of
// a namespace need no quoting in Lua.
func inNamespace(namespace, body string) script {
	source := namespaceLine(namespace) + body
	sum := sha1.Sum([]byte(source)) // the name by which Redis knows it; no secret
	return script{source: source, sha: hex.EncodeToString(sum[:])}
}

func namespaceLine(namespace string) string { return "local NAMESPACE = '" + namespace + "'\n" }

// scriptsOf returns all scripts for a namespace, by the SHA-1 that they have without one. It returns nil for no
// namespace.
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

// once is a command that is sent only once. A Cluster client would send other commands again after a network error,
// although the first may have done its work.
type once struct {
	*goredis.StringCmd
	// confirms is that of the script. confirmed is what the replicas said; nil if they were not asked.
	confirms  bool
	confirmed *confirmed
}

// NoRetry makes the client try only once. Redirections are followed all the same, since a node that redirects has not
// run the command.
func (*once) NoRetry() bool { return true }

// onceList is [once] for lists.
type onceList struct{ *goredis.StringSliceCmd }

// NoRetry makes the client try only once, so that an error is returned at once.
func (onceList) NoRetry() bool { return true }

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
	key := ""
	if n := args[2].(int); n > 0 {
		key = args[3].(string)
	}
	for {
		text, err := s.ask(ctx, sc, key, args)
		switch {
		case err == nil:
			return text, nil
		case goredis.HasErrorPrefix(err, "NOSCRIPT") && args[0] == "evalsha":
			args[0], args[1] = "eval", sc.source
		case goredis.IsTryAgainError(err):
			// The slot is moving to another node, and its keys are on both nodes. Nothing was done, and the move of
			// these keys is over in a moment.
			if err := pause(ctx, jitter(5*time.Millisecond, 25*time.Millisecond)); err != nil {
				return "", err
			}
		default:
			return "", err
		}
	}
}

// ask sends a script. WAIT is about what its own connection did, and would hold up others: a script that replicas must
// confirm has a connection for itself.
func (s *Store) ask(ctx context.Context, sc script, key string, args []any) (string, error) {
	if !s.confirms || !sc.confirms {
		r, err := s.exchange(ctx, key, args, false)
		return r.text, err
	}
	cmd := &once{StringCmd: goredis.NewStringCmd(ctx, args...), confirms: true}
	if err := s.client.Process(ctx, cmd); err != nil {
		return "", err
	}
	return cmd.Val(), cmd.confirmed.err()
}

// exchange sends a command about key once, by the shared connection if there is one. Otherwise, and where that
// connection leads to the wrong server, the driver sends it: a server that redirects has not run it.
func (s *Store) exchange(ctx context.Context, key string, args []any, list bool) (r reply, err error) {
	r, sent, err := s.sharing.do(ctx, key, args)
	switch {
	case sent && err != nil:
		return r, err
	case sent && !isRedirected(r.err):
		return r, r.err
	}
	if list {
		cmd := onceList{goredis.NewStringSliceCmd(ctx, args...)}
		err = s.client.Process(ctx, cmd)
		r = reply{list: cmd.Val()}
	} else {
		cmd := &once{StringCmd: goredis.NewStringCmd(ctx, args...)}
		err = s.client.Process(ctx, cmd)
		r = reply{text: cmd.Val()}
	}
	if err == nil {
		s.sharing.offer(ctx, key)
	}
	return r, err
}

// isRedirected reports whether another server is to be asked. No change was made.
func isRedirected(err error) bool {
	return err != nil && (isMisplaced(err) || goredis.HasErrorPrefix(err, "ASK "))
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
	if errors.Is(err, goredis.Nil) { // only the question to sentinels for the master may be answered with nothing
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
		// This is a deadline of the driver's own. The caller's context is alive, and must not seem to have ended.
		return fmt.Errorf("redis: %s: %w: %w", doing, storage.ErrUnavailable, lateError(storage.Hide(err, s.secrets...).Error()))
	}
	return fmt.Errorf("redis: %s: %w: %w", doing, storage.ErrUnavailable, storage.Hide(err, s.secrets...))
}

// lateError is the text of an error of the driver after a deadline of its own. It is not the error of a context.
type lateError string

func (e lateError) Error() string { return string(e) }

// Timeout is true.
func (lateError) Timeout() bool { return true }

// corrupt is the word by which scripts say that a key holds something else than it should. Redis puts words of its own
// around it.
var corrupt = regexp.MustCompile(`(^|ERR |user_script:\d+: )CORRUPT `)

// isCorrupt reports whether a key holds something else than it should: a script says so, or the key is of another type.
// All keys of a call are ours. No other error of a script says anything about what is stored.
func isCorrupt(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply) && (corrupt.MatchString(reply.Error()) || strings.Contains(reply.Error(), "WRONGTYPE "))
}

// isReply reports whether the server answered, with an error.
func isReply(err error) bool { return replyOf(err) != "" }

// replyOf returns the error that the server answered with, or "" if it did not answer with one.
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

// Additions of the server to its words, which are cut off: the place in a script, which nobody needs; the arguments of
// an unknown command, which hold names and documents of carts; and the name of the user, which comes from a secret
// file.
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

// words returns what the server said, without secrets and additions.
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
