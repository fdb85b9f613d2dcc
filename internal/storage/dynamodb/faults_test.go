package dynamodb

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/storage"
	"github.com/sidecart/sidecart/internal/storage/cell"
	"github.com/sidecart/sidecart/internal/testserver"
)

var u1 = cart.Key{Identifier: "u1", Instance: "default"}

// change is one change of base.
func change(base *cart.Cart, document string) storage.Commit {
	return storage.Commit{
		Key: u1, Expect: storage.Expect{ID: base.ID, Version: base.Version},
		Change: storage.Change{
			NewID: "0b37a9a0-7a54-4b35-9d4e-3f1f5a7a5a11", Steps: 1, TTL: time.Hour,
			Writes: []storage.Write{{Part: cart.PartItems, Value: []byte(document), Step: 1}},
		},
		Locks: storage.Locks{Parts: []cart.Part{cart.PartItems}},
	}
}

func mustLoad(t *testing.T, s storage.Store) *cart.Cart {
	t.Helper()
	c, err := s.Load(t.Context(), u1)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustCommit(t *testing.T, s storage.Store, c storage.Commit) {
	t.Helper()
	outs, err := s.Commit(t.Context(), c)
	if err != nil || outs[0].Status != storage.Committed {
		t.Fatalf("Commit: %+v, %v", outs, err)
	}
}

// faulty is a store whose requests go through a proxy, and one that goes to the server.
func faulty(t *testing.T) (p *proxy, through, direct *cell.Store) {
	server := testserver.StartDynalite(t)
	p = startProxy(t, server.Endpoint)
	through, direct = openStore(t, configAt(p.URL)), openStore(t, configAt(server.Endpoint))
	if err := direct.Ping(t.Context()); err != nil { // the table is there
		t.Fatal(err)
	}
	mustLoad(t, through)
	return p, through, direct
}

// TestThrottling: a server that is too busy is asked again for as long as the caller waits.
func TestThrottling(t *testing.T) {
	p, s, direct := faulty(t)
	for _, operation := range []string{"PutItem", "GetItem"} {
		was := mustLoad(t, s)
		p.first(4, operation, fault{before: throttled})
		s := openStore(t, configAt(p.URL)) // which remembers nothing, and so reads
		mustCommit(t, s, change(was, `{"a":1}`))
		if n := p.count(operation); n != 5 {
			t.Errorf("%s was sent %d times", operation, n)
		}
		if c := mustLoad(t, direct); c.Version != was.Version+1 {
			t.Errorf("the commit made version %d of %d", c.Version, was.Version)
		}
	}

	was := mustLoad(t, direct)
	p.first(1<<20, "PutItem", fault{before: throttled})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	begun := time.Now()
	_, err := s.Commit(ctx, change(was, `{"b":1}`))
	if !errors.Is(err, storage.ErrUnavailable) || !strings.Contains(err.Error(), throttled.code) || time.Since(begun) < 400*time.Millisecond {
		t.Errorf("throttled all the time, after %v: %v", time.Since(begun), err)
	}
	if n := p.count("PutItem"); n < 3 || n > 20 {
		t.Errorf("asked %d times in half a second", n)
	}
	if c := mustLoad(t, direct); c.Version != was.Version {
		t.Errorf("a refused commit made version %d", c.Version)
	}
}

// TestLostAnswers: a write whose answer is lost is made once and reported as made, or its outcome is reported as
// unknown.
func TestLostAnswers(t *testing.T) {
	p, s, direct := faulty(t)
	other := func() {
		now, err := direct.Load(t.Context(), u1)
		if err == nil {
			_, err = direct.Commit(t.Context(), change(now, `{"other":1}`))
		}
		if err != nil {
			t.Error(err)
		}
	}
	forget := func(base *cart.Cart) storage.Commit {
		c := change(base, "")
		c.Change = storage.Change{Forget: true}
		return c
	}
	for name, tc := range map[string]struct {
		there     bool // whether there is a cart before
		forget    bool // it is forgotten
		operation string
		fault     fault
		unknown   bool
		sent      int
		version   uint64 // afterwards
	}{
		"created, cut before":                {operation: "PutItem", fault: fault{before: cut}, unknown: true, sent: 1},
		"created, cut after":                 {operation: "PutItem", fault: fault{after: cut}, sent: 1, version: 1},
		"created, error after":               {operation: "PutItem", fault: fault{after: broken}, sent: 1, version: 1},
		"created, cut after, changed since":  {operation: "PutItem", fault: fault{after: cut, meanwhile: other}, unknown: true, sent: 1, version: 2},
		"changed, cut before":                {there: true, operation: "PutItem", fault: fault{before: cut}, sent: 2, version: 2},
		"changed, error before":              {there: true, operation: "PutItem", fault: fault{before: broken}, sent: 2, version: 2},
		"changed, cut after":                 {there: true, operation: "PutItem", fault: fault{after: cut}, sent: 2, version: 2},
		"changed, error after":               {there: true, operation: "PutItem", fault: fault{after: broken}, sent: 2, version: 2},
		"changed, cut after, changed since":  {there: true, operation: "PutItem", fault: fault{after: cut, meanwhile: other}, unknown: true, sent: 2, version: 3},
		"forgotten, cut before":              {there: true, forget: true, operation: "DeleteItem", fault: fault{before: cut}, sent: 2},
		"forgotten, cut after":               {there: true, forget: true, operation: "DeleteItem", fault: fault{after: cut}, unknown: true, sent: 2},
		"forgotten, cut after, created anew": {there: true, forget: true, operation: "DeleteItem", fault: fault{after: cut, meanwhile: other}, unknown: true, sent: 2, version: 1},
	} {
		t.Run(name, func(t *testing.T) {
			if was := mustLoad(t, direct); was.Exists() {
				mustCommit(t, direct, forget(was))
			}
			if tc.there {
				mustCommit(t, direct, change(&cart.Cart{}, `{"a":1}`))
			}
			c := change(mustLoad(t, s), `{"b":1}`)
			if tc.forget {
				c = forget(mustLoad(t, s))
			}
			p.first(1, tc.operation, tc.fault)
			outs, err := s.Commit(t.Context(), c)
			if tc.unknown != (err != nil) || err != nil && (!errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, cell.ErrOutcomeUnknown)) ||
				err == nil && outs[0].Status != storage.Committed {
				t.Errorf("Commit: %+v, %v", outs, err)
			}
			if n := p.count(tc.operation); n != tc.sent {
				t.Errorf("%s was sent %d times, want %d", tc.operation, n, tc.sent)
			}
			if now := mustLoad(t, direct); now.Version != tc.version {
				t.Errorf("version %d stands there, want %d", now.Version, tc.version)
			}
		})
	}
}

// TestRefusedAfterLostAnswer: a refusal of the second attempt says nothing of the first.
func TestRefusedAfterLostAnswer(t *testing.T) {
	p, s, direct := faulty(t)
	mustCommit(t, direct, change(&cart.Cart{}, `{"a":1}`))
	was := mustLoad(t, s)
	denied := &reply{400, "AccessDeniedException", "no more"}
	p.inject(func(operation string, n int, _ string) fault {
		switch {
		case operation == "PutItem" && n == 1:
			return fault{after: cut, meanwhile: func() { // somebody else has been there since
				mustCommit(t, direct, change(mustLoad(t, direct), `{"other":1}`))
			}}
		case operation == "PutItem":
			return fault{before: denied}
		}
		return fault{}
	})
	_, err := s.Commit(t.Context(), change(was, `{"b":1}`))
	_, refused := storage.RefusalOf(err)
	if !errors.Is(err, storage.ErrUnavailable) || !errors.Is(err, cell.ErrOutcomeUnknown) || refused {
		t.Errorf("Commit: %v", err)
	}
}

// TestBrokenAnswers: reads are made again, a few times.
func TestBrokenAnswers(t *testing.T) {
	p, s, _ := faulty(t)
	for name, f := range map[string]fault{"cut": {before: cut}, "error": {after: broken}} {
		p.first(2, "GetItem", f)
		if _, err := s.Load(t.Context(), u1); err != nil || p.count("GetItem") != 3 {
			t.Errorf("%s twice: %v after %d attempts", name, err, p.count("GetItem"))
		}
		p.first(1<<20, "GetItem", f)
		if _, err := s.Load(t.Context(), u1); !errors.Is(err, storage.ErrUnavailable) || p.count("GetItem") != attempts {
			t.Errorf("%s for ever: %v after %d attempts", name, err, p.count("GetItem"))
		}
	}
}

// TestFrozen: a server that does not answer is reported within the timeouts, and used again afterwards.
func TestFrozen(t *testing.T) {
	server := testserver.StartDynalite(t)
	c := configAt(server.Endpoint)
	c.DialTimeout, c.ReadTimeout, c.WriteTimeout = 200*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond
	s := openStore(t, configAt(server.Endpoint))
	mustCommit(t, s, change(&cart.Cart{}, `{"a":1}`))
	was := mustLoad(t, s)
	s = openStore(t, c)
	for start := time.Now(); ; { // its first call may be a slow one on a busy machine
		if _, err := s.Load(t.Context(), u1); err == nil {
			break
		} else if time.Since(start) > 30*time.Second {
			t.Fatal(err)
		}
	}
	server.Pause()
	begun := time.Now()
	_, loadErr := s.Load(t.Context(), u1)
	if took := time.Since(begun); took > 2*c.ReadTimeout { // once more would be too long
		t.Errorf("a load took %v", took)
	}
	_, commitErr := s.Commit(t.Context(), change(was, `{"b":1}`))
	for doing, err := range map[string]error{"Load": loadErr, "Commit": commitErr, "Ping": s.Ping(t.Context())} {
		if !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%s of a frozen server: %v", doing, err)
		}
	}
	if took := time.Since(begun); took > 3*(c.DialTimeout+c.ReadTimeout)+2*time.Second {
		t.Errorf("that took %v", took)
	}
	server.Resume()
	s = openStore(t, configAt(server.Endpoint))
	now := mustLoad(t, s)
	mustCommit(t, s, change(now, `{"c":1}`))
	if after := mustLoad(t, s); after.Version != now.Version+1 || now.Version > was.Version+1 {
		t.Errorf("versions %d, %d, %d", was.Version, now.Version, after.Version)
	}
	server.Kill()
	begun = time.Now()
	if err := s.Ping(t.Context()); !errors.Is(err, storage.ErrUnavailable) || time.Since(begun) > 5*time.Second {
		t.Errorf("Ping of a server that is gone, after %v: %v", time.Since(begun), err)
	}
}

// TestStalledAnswer: an answer that begins and does not end is given up as soon as one that does not begin.
func TestStalledAnswer(t *testing.T) {
	server := testserver.StartDynalite(t)
	p := startProxy(t, server.Endpoint)
	c := configAt(p.URL)
	c.ReadTimeout, c.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	patientStore, s := openStore(t, configAt(server.Endpoint)), openStore(t, c)
	mustCommit(t, patientStore, change(&cart.Cart{}, `{"a":1}`))
	was := mustLoad(t, patientStore)
	for start := time.Now(); ; { // its first call may be a slow one on a busy machine
		if _, err := s.Load(t.Context(), u1); err == nil {
			break
		} else if time.Since(start) > 30*time.Second {
			t.Fatal(err)
		}
	}
	const late = 20 * time.Second
	for operation, call := range map[string]func(ctx context.Context) error{
		"GetItem": func(ctx context.Context) error {
			_, err := s.Load(ctx, u1)
			return err
		},
		"PutItem": func(ctx context.Context) error {
			_, err := s.Commit(ctx, change(was, `{"b":1}`))
			return err
		},
	} {
		p.first(1<<20, operation, fault{stalls: true})
		ctx, cancel := context.WithTimeout(t.Context(), late)
		err := call(ctx)
		if !errors.Is(err, storage.ErrUnavailable) || ctx.Err() != nil {
			t.Errorf("%s: %v", operation, err)
		}
		if unknown := errors.Is(err, cell.ErrOutcomeUnknown); unknown != (operation == "PutItem") {
			t.Errorf("%s: outcome unknown: %v, %v", operation, unknown, err)
		}
		cancel()
	}
}

// TestKindsOfErrors: the error that the library returns shows whether the request may have been carried out, whether
// another attempt is worthwhile, and what people are told.
func TestKindsOfErrors(t *testing.T) {
	frozen := testserver.StartDynalite(t)
	frozen.Pause()
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	elsewhere := func(url string) func(*dynamodb.Options) { return func(o *dynamodb.Options) { o.BaseEndpoint = &url } }
	for name, tc := range map[string]struct {
		options  func(*dynamodb.Options)
		kind     kind
		attempts int
		doubt    bool
		words    string // the whole of the cause
	}{
		"down": {elsewhere("http://127.0.0.1:1"), unsent, attempts, false, "dial tcp 127.0.0.1:1: connect: connection refused"},
		"untrusted": {elsewhere(untrusted.URL), unsent, attempts, false,
			"tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		"frozen": {elsewhere(frozen.Endpoint), late, 1, true, "net/http: timeout awaiting response headers"},
		"no credentials": {func(o *dynamodb.Options) {
			o.Credentials = credentialsOf{credentials.NewStaticCredentialsProvider("", "", "")}
		}, refused, 1, false, "there are no credentials: name accessKeyIdFile and secretAccessKeyFile, or give the pod a role: static credentials are empty"},
	} {
		t.Run(name, func(t *testing.T) {
			config := configAt(frozen.Endpoint)
			config.ReadTimeout, config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
			d, err := newDriver(t.Context(), config, tc.options)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = d.Close() }()
			made := 0
			c := call{timeout: d.write, run: func(ctx context.Context) error {
				made++
				_, err := d.client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &d.table, Item: d.space.key(u1)})
				return err
			}}
			err = d.do(t.Context(), &c)
			if kindOf(err) != tc.kind || made != tc.attempts || c.doubt != tc.doubt {
				t.Errorf("kind %d after %d attempts, in doubt: %v; want %d, %d, %v", kindOf(err), made, c.doubt, tc.kind, tc.attempts, tc.doubt)
			}
			told := d.translate(err)
			_, isRefusal := storage.RefusalOf(told)
			if !errors.Is(told, storage.ErrUnavailable) || isRefusal != (tc.kind == refused) || told.Error() != storage.ErrUnavailable.Error()+": "+tc.words {
				t.Errorf("told: %v", told)
			}
		})
	}
}

// TestRefusals: the server's words are in the error, but nothing of the credentials or of what was signed.
func TestRefusals(t *testing.T) {
	p, s, _ := faulty(t)
	const secret, id = "wJalrXUtnFEMI", "AKIDEXAMPLE"
	for _, r := range []reply{
		{400, "AccessDeniedException", "User: arn:aws:sts::1:assumed-role/x is not authorized to perform: dynamodb:PutItem, " + id + " " + secret},
		{400, "InvalidSignatureException", "The Canonical String should have been 'x-amz-security-token:tokenOfSession' " + secret + id},
		{400, "UnrecognizedClientException", "The security token tokenOfSession is invalid."},
	} {
		p.first(1<<20, "PutItem", fault{before: &r})
		_, err := s.Commit(t.Context(), change(&cart.Cart{}, `{}`))
		words, ok := storage.RefusalOf(err)
		if !errors.Is(err, storage.ErrUnavailable) || !ok || !strings.HasPrefix(words, r.code) {
			t.Errorf("%s: %v", r.code, err)
			continue
		}
		for _, told := range []string{secret, id, "tokenOfSession"} {
			if strings.Contains(err.Error()+words, told) {
				t.Errorf("%s tells %s: %v", r.code, told, err)
			}
		}
		if errors.Is(err, cell.ErrOutcomeUnknown) {
			t.Errorf("%s: nothing was changed, and that is not known: %v", r.code, err)
		}
		if p.count("PutItem") != 1 {
			t.Errorf("%s was asked %d times", r.code, p.count("PutItem"))
		}
	}
}
