package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecart/sidecart/internal/cart"
	"github.com/sidecart/sidecart/internal/lock"
	"github.com/sidecart/sidecart/internal/varint"
	pb "github.com/sidecart/sidecart/proto/sidecart/v1"
)

const (
	listPath = "/v1/carts"
	// defaultPage and mostPage are how many carts are on a page.
	defaultPage = 100
	mostPage    = 1000
)

func (s *service) ListCarts(ctx context.Context, r *pb.ListCartsRequest) (*pb.ListCartsResponse, error) {
	return call(ctx, s, func(ctx context.Context, b *Backend) (*pb.ListCartsResponse, error) {
		if !b.AllowList {
			return nil, fmt.Errorf("to list carts is %w: set allowList to permit it", errForbidden)
		}
		if err := unconditional(ctx); err != nil {
			return nil, err
		}
		if c := httpCallOf(ctx); c != nil && c.list != nil {
			r = c.list
		}
		size := int32(defaultPage)
		if r.PageSize != nil {
			size = *r.PageSize
		}
		if size < 1 || size > mostPage {
			return nil, cart.Invalidf("pageSize", "must be from 1 to %d, is %d", mostPage, size)
		}
		idle, err := durationOf("idleFor", r.IdleFor, 0, 0, mostIdle)
		if err != nil {
			return nil, err
		}
		place, err := parsePageToken(r.PageToken, idle, b)
		if err != nil {
			return nil, err
		}
		found, next, err := b.Coordinator.List(ctx, lock.ListRequest{Place: place, Most: int(size), Idle: idle})
		if err != nil {
			return nil, err
		}
		answer := &pb.ListCartsResponse{Carts: make([]*pb.ListedCart, len(found))}
		for i, c := range found {
			answer.Carts[i] = &pb.ListedCart{
				Identifier: c.Key.Identifier, Instance: c.Key.Instance, Version: c.Version,
				UpdatedAt: timeAnswer(c.UpdatedAt), ExpiresAt: timeAnswer(c.ExpiresAt),
			}
		}
		if next != nil {
			answer.NextPageToken = pageToken(next, idle, b)
		}
		return answer, nil
	})
}

// mostIdle is the longest time that a duration of the API can be asked for.
const mostIdle = 100 * 365 * 24 * time.Hour

// parseListQuery reads the parameters of a list, the only ones of the API.
func parseListQuery(query string) (*pb.ListCartsRequest, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, cart.Invalidf("query", "%v", err)
	}
	r := &pb.ListCartsRequest{}
	for name, given := range values {
		if len(given) > 1 {
			return nil, cart.Invalidf(shown([]byte(name)), "is there %d times: send it once", len(given))
		}
		value := given[0]
		switch name {
		case "pageSize":
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil {
				return nil, cart.Invalidf(name, "must be a whole number from 1 to %d, not %q", mostPage, shown([]byte(value)))
			}
			size := int32(n)
			r.PageSize = &size
		case "pageToken":
			r.PageToken = value
		case "idleFor":
			d, err := time.ParseDuration(value)
			if err != nil {
				return nil, cart.Invalidf(name, `must be a duration such as "30m" or "2h", not %q`, shown([]byte(value)))
			}
			r.IdleFor = durationpb.New(d)
		default:
			return nil, cart.Invalidf(shown([]byte(name)), "unknown parameter; known are pageSize, pageToken, idleFor")
		}
	}
	return r, nil
}

// takeQuery reads the query, and returns the request without it.
func takeQuery(r *http.Request, c *httpCall) (*http.Request, error) {
	var err error
	if c.list, err = parseListQuery(r.URL.RawQuery); err != nil {
		return r, err
	}
	bare := *r.URL
	bare.RawQuery = ""
	r = r.WithContext(r.Context()) // a copy
	r.URL = &bare
	return r, nil
}

// A page token is a place, how long carts must be idle, and a checksum, all in base64. The checksum also covers where
// the carts are, because a place in one backend means nothing in another.
const (
	tokenForm     = 1
	tokenSumBytes = 8
)

var tokenEncoding = base64.RawURLEncoding.Strict()

func tokenSum(raw []byte, b *Backend) []byte {
	h := sha256.New()
	for _, s := range []string{b.Name, b.Place, b.Prefix, b.MovesFrom} {
		h.Write([]byte(s + "\x00"))
	}
	h.Write(raw)
	return h.Sum(nil)[:tokenSumBytes]
}

func pageToken(p *lock.ListPlace, idle time.Duration, b *Backend) string {
	raw := []byte{tokenForm, 0}
	if p.Last {
		raw[1] = 1
	}
	raw = varint.AppendText(binary.AppendUvarint(raw, uint64(idle)), p.After)
	for _, key := range p.Pending {
		raw = varint.AppendText(varint.AppendText(raw, key.Identifier), key.Instance)
	}
	return tokenEncoding.EncodeToString(append(raw, tokenSum(raw, b)...))
}

// parsePageToken reads what pageToken wrote, and nothing else. An empty token is the beginning.
func parsePageToken(token string, idle time.Duration, b *Backend) (p lock.ListPlace, err error) {
	if token == "" {
		return p, nil
	}
	altered := cart.Invalidf("pageToken", "is none of this list: give the nextPageToken of the page before as it is, to a sidecar of the same carts")
	raw, err := tokenEncoding.DecodeString(token)
	if err != nil || len(raw) < 2+tokenSumBytes {
		return p, altered
	}
	raw, sum := raw[:len(raw)-tokenSumBytes], raw[len(raw)-tokenSumBytes:]
	if string(sum) != string(tokenSum(raw, b)) || raw[0] != tokenForm {
		return p, altered
	}
	p.Last = raw[1] == 1
	r := varint.NewReader(raw[2:])
	of := time.Duration(r.Uint())
	p.After = r.Text()
	for r.Len() > 0 {
		p.Pending = append(p.Pending, cart.Key{Identifier: r.Text(), Instance: r.Text()})
	}
	switch {
	case r.Failed():
		return lock.ListPlace{}, altered
	case of != idle:
		return lock.ListPlace{}, cart.Invalidf("idleFor", "must be %s as on the page before, is %s", of, idle)
	}
	return p, nil
}
