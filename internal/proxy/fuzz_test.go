package proxy

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
)

// What passes for a name of loopback is one to whoever parses it otherwise.
func FuzzLoopbackHost(f *testing.F) {
	for _, s := range []string{"localhost:7421", "127.0.0.1:7421", "[::1]:7421", "localhost.", "127.0.0.1:80@evil.example", "evil.localhost", "[::1%25lo]:1", "127.0.0.1:", "::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !loopbackHost(host) {
			return
		}
		if ip, err := netip.ParseAddr(strings.TrimSuffix(host, ".")); err == nil { // no URL has one so
			if !ip.Unmap().IsLoopback() {
				t.Fatalf("%q", host)
			}
			return
		}
		u, err := url.Parse("http://" + host + "/path")
		if err != nil || u.User != nil || u.Path != "/path" {
			t.Fatalf("%q is no host: %v", host, err)
		}
		name := strings.TrimSuffix(u.Hostname(), ".")
		if ip, err := netip.ParseAddr(name); !strings.EqualFold(name, "localhost") && (err != nil || !ip.Unmap().IsLoopback()) {
			t.Fatalf("%q is taken for loopback: %q", host, name)
		}
	})
}

// A header that promises safety and says nothing never passes, and none passes that nobody keeps.
func FuzzPromises(f *testing.F) {
	for _, s := range []string{"", " ", ",", "*", `"x", "y"`, "\t,\t", "\x00"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, value string, reads bool) {
		for _, p := range promises {
			err := checkPromises(http.Header{p.name: {value}}, reads)
			empty := strings.Trim(value, " \t,") == ""
			kept := !reads && p.changes == "" || reads && p.reads == ""
			if (err == nil) != (kept && !empty) {
				t.Errorf("%s: %q, reads %t: %v", p.name, value, reads, err)
			}
			if checkPromises(http.Header{p.name: {"x", value}}, reads) == nil && (empty || p.once) {
				t.Errorf("%s: twice, %q", p.name, value)
			}
			if checkMetadata(metadata.MD{strings.ToLower(p.name): {value}}) == nil {
				t.Errorf("%s: %q in metadata", p.name, value)
			}
		}
	})
}

// No request, whatever its bytes are, gets an answer that is not JSON, or an answer of our own inside of one.
func FuzzOwnAnswers(f *testing.F) {
	f.Add("HTTP/1.1 400 Bad Request\r\n\r\n")
	f.Add("HTTP/1.1 431 \r\n")
	f.Add("HTTP/1.1 ")
	f.Add("HTTP/1.1 9999999")
	f.Fuzz(func(t *testing.T, line string) {
		var told *failure
		got := string(refusal([]byte(line), func(f *failure) { told = f }))
		if told == nil || !strings.HasPrefix(got, "HTTP/1.1 ") || !strings.Contains(got, "\r\n\r\n{\"code\":3,") {
			t.Errorf("%q: %q", line, got)
		}
	})
}
