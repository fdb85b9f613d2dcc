package redis

import (
	"context"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// waiters are the waiting claims of this process, and the one subscription by which they are woken. The store
// subscribes when the first claim has to wait, so a store without contention has no connection for that.
type waiters struct {
	channel     string
	subscribing chan struct{} // holds an element while somebody subscribes

	mu      sync.Mutex
	byToken map[string]*waiter
	sub     *goredis.PubSub
	ended   chan struct{} // closed when the reader of sub has ended
	heard   bool          // the last attempt to subscribe was confirmed
}

// subscribeTimeout bounds the wait for the server's confirmation.
const subscribeTimeout = 2 * time.Second

func newWaiters(channel string) *waiters {
	return &waiters{channel: channel, subscribing: make(chan struct{}, 1), byToken: map[string]*waiter{}}
}

// waiter is one claim.
type waiter struct {
	// wake gets what was granted. The cart's fields are left out if they do not fit in a message.
	wake chan granted
	// listening says that a grant since the claim was sent would have been heard.
	listening bool
	outlook   granted
}

// join registers a token, or finds it registered. It must come before the claim is sent, since the wake-up may overtake
// the answer.
func (ws *waiters) join(token string) *waiter {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byToken[token]; w != nil {
		return w
	}
	w := &waiter{wake: make(chan granted, 1), listening: ws.sub != nil, outlook: granted{first: -1}}
	ws.byToken[token] = w
	return w
}

// queued notes what the answer to a commit said of its claim.
func (ws *waiters) queued(token string, g granted) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.byToken[token]; w != nil {
		w.outlook = g
	}
}

func (ws *waiters) leave(token string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.byToken, token)
}

// listen subscribes, unless that was done, and returns when the server has confirmed it. The driver replaces a
// connection that breaks. Waiters find at their next heartbeat what they missed meanwhile.
func (ws *waiters) listen(ctx context.Context, client goredis.UniversalClient) error {
	select {
	case ws.subscribing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-ws.subscribing }()
	ws.mu.Lock()
	done := ws.sub != nil
	ws.mu.Unlock()
	if done {
		return nil
	}
	sub, err := ws.subscribe(ctx, client)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	messages := sub.Channel()
	go func() {
		defer close(ended)
		for m := range messages {
			ws.dispatch(m.Payload)
		}
	}()
	ws.mu.Lock()
	ws.sub, ws.ended = sub, ended
	ws.mu.Unlock()
	return nil
}

// subscribe returns when the server has confirmed it.
func (ws *waiters) subscribe(ctx context.Context, client goredis.UniversalClient) (*goredis.PubSub, error) {
	sub := client.Subscribe(ctx, ws.channel)
	_, err := sub.ReceiveTimeout(ctx, subscribeTimeout)
	ws.mu.Lock()
	ws.heard = err == nil
	ws.mu.Unlock()
	if err != nil {
		_ = sub.Close()
		return nil, err
	}
	return sub, nil
}

// audible tries whether wake-ups can be received, unless the last attempt has shown that.
func (ws *waiters) audible(ctx context.Context, client goredis.UniversalClient) error {
	ws.mu.Lock()
	heard := ws.heard
	ws.mu.Unlock()
	if heard {
		return nil
	}
	sub, err := ws.subscribe(ctx, client)
	if err == nil {
		_ = sub.Close()
	}
	return err
}

// dispatch hands a wake-up to its waiter. It drops a wake-up that no claim waits for.
func (ws *waiters) dispatch(payload string) {
	u := unpacker{rest: payload}
	u.next()
	token, g := u.next().text, granted{yes: true, flat: u.texts()}
	ws.mu.Lock()
	w := ws.byToken[token]
	ws.mu.Unlock()
	if w == nil || u.err != nil {
		return
	}
	select {
	case w.wake <- g:
	default: // woken already
	}
}

func (ws *waiters) close() {
	ws.mu.Lock()
	sub, ended := ws.sub, ws.ended
	ws.mu.Unlock()
	if sub != nil {
		_ = sub.Close()
		<-ended
	}
}
