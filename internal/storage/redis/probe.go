package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
)

var _ storage.Beater = (*Store)(nil)

// probeLife is how long the keys of a probe last at most if the probe breaks off.
const probeLife = 10 * time.Second

// Beat runs a script that a replica, or a server that cannot write, refuses.
func (s *Store) Beat(ctx context.Context) error {
	reply, err := s.run(ctx, pingScript, scriptArgs(pingScript, 0, s.space.namespace+"fence."+s.space.prefix+".ping"))
	if err == nil && reply != "0" {
		err = fmt.Errorf("unexpected answer %q", reply)
	}
	return s.translate(ctx, s.wouldNotConfirm(err), "ping")
}

// Ping takes a lease on a cart of its own, makes that cart, changes it, lists it, and forgets it, by the scripts that
// do this for clients; in a Cluster on each master.
func (s *Store) Ping(ctx context.Context) error {
	select {
	case s.probing <- struct{}{}:
		defer func() { <-s.probing }()
	case <-ctx.Done():
		return s.translate(ctx, ctx.Err(), "ping")
	}
	identifiers, err := s.probeIdentifiers(ctx)
	for _, identifier := range identifiers {
		if err == nil {
			err = s.probeTwice(ctx, identifier)
		}
	}
	return s.translate(ctx, s.wouldNotConfirm(err), "ping")
}

// probeIdentifiers returns the identifiers of the carts to probe with, one for each master.
func (s *Store) probeIdentifiers(ctx context.Context) ([]string, error) {
	c, ok := s.client.(*goredis.ClusterClient)
	if !ok {
		return []string{probeName}, nil
	}
	var (
		mu      sync.Mutex
		masters = map[string]bool{}
	)
	err := c.ForEachMaster(ctx, func(_ context.Context, node *goredis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		masters[node.Options().Addr] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	var identifiers []string
	// Of three masters, each is found within about ten tries. A master with very few slots may not be found, and is
	// left out.
	for n, tries := 0, 100*len(masters); n < tries && len(masters) > 0; n++ {
		identifier := probeName + strconv.Itoa(n)
		node, err := c.MasterForKey(ctx, s.space.names(cart.Key{Identifier: identifier, Instance: probeName}).cart)
		if err != nil {
			return nil, err
		}
		if addr := node.Options().Addr; masters[addr] {
			delete(masters, addr)
			identifiers = append(identifiers, identifier)
		}
	}
	return identifiers, nil
}

// errProbe is below the error of a probe that found an unexpected state: the server loses keys, or somebody flushed
// meanwhile.
var errProbe = errors.New("the probe met something unexpected")

// probeTwice probes again where somebody flushed meanwhile, or an earlier probe broke off.
func (s *Store) probeTwice(ctx context.Context, identifier string) error {
	err := s.probe(ctx, identifier)
	if errors.Is(err, errProbe) {
		err = s.probe(ctx, identifier)
	}
	return err
}

func (s *Store) probe(ctx context.Context, identifier string) error {
	// Several sidecars may probe at once, so the name is this sidecar's own. It is the same each time, so that the keys
	// of probes that broke off do not pile up.
	key := cart.Key{Identifier: identifier, Instance: s.probeInstance}
	work := s.probeScripts(ctx, key)
	if work != nil && !isReply(work) && !isUnconfirmed(work) && !errors.Is(work, errProbe) {
		return work // no server answers, and the rest would only wait again
	}
	// probe.lua cleans up, and names what was refused.
	n := s.space.names(key)
	keys := []string{n.cart, n.index, n.queue, n.lock, n.fence, n.lockKey(cart.PartItems), n.lockKey(cart.PartMetadata("m"))}
	mute, err := s.run(ctx, probeScript, append(scriptArgs(probeScript, 1, keys...), s.waiters.channel))
	if err != nil {
		for _, k := range keys { // each by itself, since the right to some may be missing
			_ = s.client.Del(ctx, k).Err()
		}
		return s.whichKey(ctx, err, keys)
	}
	s.mute.Store(&mute)
	return work
}

// whichKey adds to the error of a script which of its keys may not be used, since the server does not say that. Keys
// are in the order of probe.lua.
func (s *Store) whichKey(ctx context.Context, err error, keys []string) error {
	if !goredis.HasErrorPrefix(err, "NOPERM") {
		return err
	}
	for i, kind := range []string{"a cart", "an index", "a queue", "a lock", "a fence"} {
		if e := s.client.Exists(ctx, keys[i]).Err(); goredis.HasErrorPrefix(e, "NOPERM") && strings.Contains(e.Error(), "key") {
			return goredisError(s.words(err) + " (on " + kind + ")")
		}
	}
	return err
}

// probeScripts runs on key the scripts that clients' calls run.
func (s *Store) probeScripts(ctx context.Context, key cart.Key) error {
	const id = "probe"
	parts := []cart.Part{cart.PartItems, cart.PartMetadata("m")}
	claim := storage.Claim{Token: randomName(), Holder: "probe", Parts: parts, Duration: probeLife, Leased: true}
	args := s.appendClaim(scriptArgs(claimScript, 10, s.lockKeys(key, parts)...), &claim)
	reply, err := s.run(ctx, claimScript, append(args, "f"))
	if err != nil {
		return err
	}
	if g, err := decodeClaim(reply); err != nil || !g.yes {
		return fmt.Errorf("%w: a lease was not granted: %v", errProbe, err)
	}
	item := storage.Write{Part: cart.PartItems, Value: []byte("{}"), Step: 1}
	created := storage.Commit{
		Key:    key,
		Change: storage.Change{NewID: id, Steps: 1, TTL: probeLife, Writes: []storage.Write{item, {Part: parts[1], Value: []byte("1"), Step: 1}}},
		Locks:  storage.Locks{Token: claim.Token, MustHold: true, Release: true, Parts: parts},
	}
	if err := s.probeCommit(ctx, "create", created); err != nil {
		return err
	}
	list, err := s.instances(ctx, key.Identifier)
	if err != nil {
		return err
	}
	if !slices.Contains(list, escape(key.Instance)) {
		return fmt.Errorf("%w: the cart is not in the index", errProbe)
	}
	changed := storage.Commit{
		Key: key, Expect: storage.Expect{ID: id, Version: 1},
		Change: storage.Change{Steps: 1, TTL: probeLife / 2, Writes: []storage.Write{item}},
		Locks:  storage.Locks{Parts: parts[:1]},
	}
	if err := s.probeCommit(ctx, "change", changed); err != nil {
		return err
	}
	return s.probeCommit(ctx, "forget", storage.Commit{Key: key, Expect: storage.Expect{ID: id, Version: 2}, Change: storage.Change{Forget: true}, Locks: storage.Locks{Parts: []cart.Part{cart.PartAll}}})
}

func (s *Store) probeCommit(ctx context.Context, what string, c storage.Commit) error {
	outs, err := s.commit(ctx, []storage.Commit{c})
	if err == nil && outs[0].Status != storage.Committed {
		err = fmt.Errorf("%w: to %s a cart ended with status %d", errProbe, what, outs[0].Status)
	}
	return err
}
