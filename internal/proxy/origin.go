package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"google.golang.org/grpc/metadata"
)

// A request over loopback may still come from a web page: a browser on this machine can send requests here. If a
// stranger's name resolves to 127.0.0.1, they are "same origin", and the page can read the answers too. A browser must
// send the name that it asked for and the site of the page. These two headers show both cases.
//
// http.CrossOriginProtection is not enough. It allows every read, and it compares the origin with the Host; after DNS
// rebinding both are the stranger's. It also refuses other ports of this machine, which the shop's own page may use in
// development.

// checkSite refuses a request over loopback that a web page of another site may have sent.
func checkSite(host string, h http.Header) error {
	if !loopbackHost(host) {
		return foreignHost("Host", host)
	}
	if origins, there := h["Origin"]; there {
		if err := checkOrigins("Origin", origins); err != nil {
			return err
		}
	}
	if sites, there := h["Sec-Fetch-Site"]; there {
		return checkFetchSites("Sec-Fetch-Site", sites)
	}
	return nil
}

// checkAuthority is checkSite for gRPC.
func checkAuthority(md metadata.MD) error {
	if a := md[":authority"]; len(a) != 1 || !loopbackHost(a[0]) {
		return foreignHost(":authority", strings.Join(a, ", "))
	}
	if origins, there := md["origin"]; there {
		if err := checkOrigins("origin", origins); err != nil {
			return err
		}
	}
	if sites, there := md["sec-fetch-site"]; there {
		return checkFetchSites("sec-fetch-site", sites)
	}
	return nil
}

func foreignHost(what, host string) error {
	return &foreign{what, fmt.Sprintf("%s: %q is no name of this machine's loopback: ask for localhost, 127.0.0.1 or [::1], or by the Unix socket", what, shown([]byte(host)))}
}

func checkOrigins(what string, origins []string) error {
	for _, origin := range origins {
		if u, err := url.Parse(origin); err != nil || u.Scheme != "http" && u.Scheme != "https" || !loopbackHost(u.Host) {
			return &foreign{what, fmt.Sprintf("%s: %q is another site: only pages of this machine may ask", what, shown([]byte(origin)))}
		}
	}
	return nil
}

func checkFetchSites(what string, sites []string) error {
	for _, site := range sites {
		if site == "cross-site" {
			return &foreign{what, what + ": a page of another site asked, and only those of this machine may"}
		}
	}
	return nil
}

// foreign is the refusal of a request because of where it came from.
type foreign struct{ field, text string }

func (f *foreign) Error() string        { return f.text }
func (f *foreign) Is(target error) bool { return target == errForeign }

// loopbackHost reports whether host, with or without a port, is a name or an address of loopback: localhost,
// 127.0.0.0/8 or [::1].
func loopbackHost(host string) bool {
	if strings.HasPrefix(host, "127.0.0.1:") || strings.HasPrefix(host, "localhost:") {
		return portOnly(host[len("127.0.0.1:"):]) // both are as long
	}
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if !portOnly(port) {
			return false
		}
		name = h
	} else if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		name = host[1 : n-1]
	}
	name = strings.TrimSuffix(name, ".")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}

func portOnly(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) <= 5
}

// overLoopback reports whether the peer at addr is on this machine and came by TCP; it is false for a Unix socket,
// which no browser can reach.
func overLoopback(addr net.Addr) bool {
	a, ok := addr.(*net.TCPAddr)
	return ok && a.IP.IsLoopback()
}

// askedOverLoopback is overLoopback of the connection of an HTTP request.
func askedOverLoopback(r *http.Request) bool {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && a.Addr().Unmap().WithZone("").IsLoopback()
}
