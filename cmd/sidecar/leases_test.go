package main

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sidecart/sidecart/internal/config"
)

const lockedCart = "/v1/carts/u1/default"

// hold takes a lease by a stream, whose lines come by the channel.
func (s *sidecarUnderTest) hold(body string) (token string, lines <-chan string) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.http+lockedCart+"/locks:hold", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{}).Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("hold: %v %v", resp, err)
	}
	ch := make(chan string, 1000)
	go func() {
		defer close(ch)
		defer func() { _ = resp.Body.Close() }()
		for in := bufio.NewScanner(resp.Body); in.Scan(); {
			ch <- in.Text()
		}
	}()
	return tokenOf(s.t, s.line(ch)), ch
}

func (s *sidecarUnderTest) line(ch <-chan string) string {
	s.t.Helper()
	select {
	case line := <-ch:
		return line
	case <-time.After(patience):
		s.t.Fatalf("no line came:\n%s", s.logs)
		return ""
	}
}

// last reads lines until one is an error.
func (s *sidecarUnderTest) last(ch <-chan string) string {
	s.t.Helper()
	for {
		if line := s.line(ch); !strings.HasPrefix(line, `{"result":`) {
			return line
		}
	}
}

func tokenOf(t *testing.T, text string) string {
	t.Helper()
	var v struct {
		Token  string
		Result struct{ Token string }
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v.Token + v.Result.Token
}

// acquire asks for a lease without waiting, and returns the answer.
func (s *sidecarUnderTest) acquire(body string) (int, string) {
	s.t.Helper()
	code, text, err := request(http.MethodPost, s.http+lockedCart+"/locks", body)
	if err != nil {
		s.t.Fatal(err)
	}
	return code, text
}

// New settings leave leases alone. A new backend ends the leases that streams hold, and says so. Tokens of the old
// backend are unknown to the new one, and still stand in the old one.
func TestReloadWhileLeasesAreHeld(t *testing.T) {
	urls := []string{sqliteURL(t), sqliteURL(t)}
	at := func(generation int64, url string) string {
		return render(t, func(c *config.Config) {
			c.Generation = generation
			c.Backend = config.Backend{Type: config.BackendDatabase, Database: &config.Database{URL: config.URL(url)}}
		})
	}
	v := newVolume(t, at(1, urls[0]))
	s := launchFile(t, v.file())
	s.ready(true)
	streamed, lines := s.hold(`{"parts":["conditions"],"leaseDuration":"600ms"}`)
	code, text := s.acquire(`{"parts":["items"],"leaseDuration":"1h"}`)
	if code != http.StatusOK {
		t.Fatal(text)
	}
	token := tokenOf(t, text)
	stands := func(token string) int {
		code, _ := s.get(s.http + lockedCart + "/locks/" + token)
		return code
	}

	v.update(at(2, urls[0]))
	s.await("configuration taken over")
	for range 4 { // for longer than the lease lives without
		if line := s.line(lines); tokenOf(t, line) != streamed {
			t.Fatalf("new settings ended the stream: %s", line)
		}
	}
	if code := stands(token); code != http.StatusOK {
		t.Errorf("after new settings: %d", code)
	}

	v.update(at(3, urls[1]))
	s.await("configuration taken over")
	if line := s.last(lines); !strings.Contains(line, `"reason":"LOCK_LOST"`) {
		t.Errorf("the stream ended with %s", line)
	}
	if code := stands(token); code != http.StatusNotFound {
		t.Errorf("on the new backend: %d", code)
	}
	if code, text := s.acquire(`{"waitTimeout":"0s","leaseDuration":"10ms"}`); code != http.StatusOK {
		t.Errorf("the new backend is locked: %s", text)
	}

	v.update(at(4, urls[0]))
	s.await("configuration taken over")
	if code := stands(token); code != http.StatusOK {
		t.Errorf("back on the old backend: %d", code)
	}
	if code := stands(streamed); code != http.StatusNotFound {
		t.Errorf("the stream's lease was not given back: %d", code)
	}
	if code := s.stop(); code != exitOK || strings.Contains(s.logs.String(), "cut off") {
		t.Errorf("exit code %d:\n%s", code, s.logs)
	}
	if strings.Contains(s.logs.String(), token) || strings.Contains(s.logs.String(), streamed) {
		t.Error("a token is logged")
	}
}

// A graceful stop gives back what streams hold, at once.
func TestStopReleasesHeldLeases(t *testing.T) {
	url := sqliteURL(t)
	s := launch(t, "--backend=database", "--database-url="+url)
	s.ready(true)
	_, lines := s.hold(`{"leaseDuration":"1h"}`)
	start := time.Now()
	if code := s.stop(); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, s.logs)
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("after %s", took)
	}
	if line := s.last(lines); !strings.Contains(line, `"reason":"SHUTTING_DOWN"`) {
		t.Errorf("the stream ended with %s", line)
	}
	next := launch(t, "--backend=database", "--database-url="+url)
	next.ready(true)
	if code, text := next.acquire(`{"waitTimeout":"0s"}`); code != http.StatusOK {
		t.Errorf("the next sidecar finds the cart locked: %s", text)
	}
}
