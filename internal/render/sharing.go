package render

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sidecart/sidecart/api/v1alpha1"
	"github.com/sidecart/sidecart/internal/config"
)

// LocksAcrossReplicas reports whether the backend can hold off writers of other pods. Memory, a file and SQLite cannot:
// each pod has its own.
func LocksAcrossReplicas(b *v1alpha1.Backend) bool {
	dialect := ""
	if b.Database != nil {
		dialect = string(b.Database.Dialect)
	}
	return config.IsShared(config.BackendType(b.Type), dialect)
}

// SameCarts reports whether two CartStorages keep their carts, or their checkouts, under the same names in the same
// place, as far as can be seen. A backend that has two names, or whose URL is in different secrets, is not recognised.
// Carts that move are in two places.
func SameCarts(a, b *v1alpha1.CartStorage) bool {
	there := allPlaces(b)
	return slices.ContainsFunc(allPlaces(a), func(p place) bool { return slices.ContainsFunc(there, p.overlaps) })
}

// allPlaces are those of the backend and of the former one.
func allPlaces(cs *v1alpha1.CartStorage) []place {
	all := places(cs)
	if former := Former(cs); former != nil {
		all = append(all, places(former)...)
	}
	return all
}

// place is where carts live. Two places are the same if they have the same kind and the same prefix and share an
// address.
type place struct {
	what      string
	addresses []string
	prefix    string
}

func (p place) overlaps(q place) bool {
	return p.what == q.what && p.prefix == q.prefix && slices.ContainsFunc(p.addresses, func(a string) bool { return slices.Contains(q.addresses, a) })
}

func places(cs *v1alpha1.CartStorage) (all []place) {
	b := &cs.Spec.Backend
	prefix := cmp.Or(cs.Spec.KeyPrefix, "cart")
	add := func(places ...place) {
		for _, p := range places {
			p.prefix += prefix
			all = append(all, p)
		}
	}
	switch {
	case b.Redis != nil:
		add(place{
			what: fmt.Sprintf("redis\x00%s\x00%d", b.Redis.MasterName, b.Redis.Database), addresses: canonical(b.Redis.Addresses, cs.Namespace),
			prefix: b.Redis.Namespace,
		})
	case b.Memcached != nil:
		add(place{what: "memcached", addresses: canonical(b.Memcached.Addresses, cs.Namespace)})
	case b.File != nil && b.Type == v1alpha1.BackendFile:
		add(claim("file", b.File.Volume, cs.Namespace)...)
	}
	add(durable(b.DynamoDB, b.Database, cs.Namespace)...)
	if c := cs.Spec.Critical(); c != nil {
		add(durable(c.DynamoDB, c.Database, cs.Namespace)...)
	}
	return all
}

func durable(dynamo *v1alpha1.DynamoDBBackend, db *v1alpha1.DatabaseBackend, namespace string) (all []place) {
	if dynamo != nil {
		all = append(all, place{what: "dynamodb\x00" + dynamo.Endpoint + "\x00" + dynamo.Region, addresses: []string{dynamo.TableName}})
	}
	switch {
	case db == nil:
	case db.Dialect == v1alpha1.SQLite:
		all = append(all, claim("sqlite", db.Volume, namespace)...)
	case db.URLSecretRef != nil:
		all = append(all, place{what: "url\x00" + namespace, addresses: []string{db.URLSecretRef.Name + "/" + urlKey(db.URLSecretRef)}})
	default:
		u := database(db).URL
		_, path, _ := strings.Cut(string(u), "://")
		host, _, _ := strings.Cut(path, "/")
		all = append(all, place{what: string(db.Dialect) + "\x00" + db.Name, addresses: []string{canonicalAddress(host, namespace)}})
	}
	return all
}

// claim returns the place of a volume that several pods could mount. A volume without a claim belongs to its pod, and
// is no such place.
func claim(what string, v *v1alpha1.Volume, namespace string) []place {
	if v == nil || v.ClaimName == "" {
		return nil
	}
	return []place{{what: what + "\x00" + namespace, addresses: []string{v.ClaimName}}}
}

func canonical(addresses []v1alpha1.Address, namespace string) []string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = canonicalAddress(string(a), namespace)
	}
	return out
}

// canonicalAddress makes one of the names that a Service goes by: "redis:6379" in namespace shop is "redis.shop:6379"
// and "redis.shop.svc.cluster.local:6379".
func canonicalAddress(address, namespace string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return net.JoinHostPort(ip.Unmap().String(), port)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	host = strings.TrimSuffix(strings.TrimSuffix(host, ".cluster.local"), ".svc")
	if !strings.Contains(host, ".") {
		host += "." + namespace
	}
	return net.JoinHostPort(host, port)
}
