package render

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sidecart/sidecart/api/v1alpha1"
)

// Where says where the carts of cs are, in words: "Redis redis:6379". It names no secret.
func Where(cs *v1alpha1.CartStorage) string {
	switch b := &cs.Spec.Backend; {
	case b.Redis != nil:
		where := "Redis " + join(b.Redis.Addresses)
		if b.Redis.MasterName != "" {
			where += ", master " + b.Redis.MasterName
		}
		if b.Redis.Database != 0 {
			where += fmt.Sprintf(", database %d", b.Redis.Database)
		}
		if b.Redis.Namespace != "" {
			where += ", namespace " + b.Redis.Namespace
		}
		return where
	case b.Memcached != nil:
		return "Memcached " + join(b.Memcached.Addresses)
	case b.DynamoDB != nil:
		return "table " + b.DynamoDB.TableName + " of DynamoDB in " + b.DynamoDB.Region
	case b.Database != nil && b.Database.Dialect != v1alpha1.SQLite:
		if ref := b.Database.URLSecretRef; ref != nil {
			return fmt.Sprintf("the %s database of Secret %s", b.Database.Dialect, ref.Name)
		}
		return fmt.Sprintf("database %s of %s %s", b.Database.Name, b.Database.Dialect, b.Database.Host)
	case b.Type == v1alpha1.BackendMemory:
		return "the memory of the sidecars"
	}
	if d := dataSource(cs); d != nil && d.PersistentVolumeClaim != nil {
		return "PersistentVolumeClaim " + d.PersistentVolumeClaim.ClaimName
	}
	return "the volumes of the pods"
}

func join(addresses []v1alpha1.Address) string {
	const most = 3
	if more := len(addresses) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", join(addresses[:most]), more)
	}
	return strings.Join(asStrings(addresses), ", ")
}

func asStrings(in []v1alpha1.Address) []string {
	out := make([]string, len(in))
	for i, a := range in {
		out[i] = string(a)
	}
	return out
}

// Moved reports whether the backend of was is another place than that of is: its carts stay behind, unless they move.
// Two names of one Service are the same place.
func Moved(was, is *v1alpha1.CartStorage) bool {
	if ownStore(was) != ownStore(is) || scattered(was) != scattered(is) {
		return true
	}
	now := places(is)
	return slices.ContainsFunc(places(was), func(p place) bool { return !slices.ContainsFunc(now, p.overlaps) })
}

// Behind returns the places whose carts a change from was to is leaves behind, each as a CartStorage with that backend.
// A former backend is one of them until its carts have moved.
func Behind(was, is *v1alpha1.CartStorage) (left []*v1alpha1.CartStorage) {
	before := []*v1alpha1.CartStorage{was}
	if former := Former(was); former != nil && MoveState(was) != v1alpha1.MoveFinished {
		before = append(before, former)
	}
	former := Former(is)
	for _, b := range before {
		if Moved(b, is) && (former == nil || Moved(withoutCheckouts(b), former)) {
			left = append(left, b)
		}
	}
	return left
}

// withoutCheckouts is cs without its backend for checkouts.
func withoutCheckouts(cs *v1alpha1.CartStorage) *v1alpha1.CartStorage {
	carts := *cs
	carts.Spec.CriticalBackend = nil
	return &carts
}

// ownStore names, by kind and prefix, a store that belongs to one pod, which [places] does not know. It returns "" if
// pods share the store.
func ownStore(cs *v1alpha1.CartStorage) string {
	b := &cs.Spec.Backend
	switch d := dataSource(cs); {
	case b.Type == v1alpha1.BackendMemory:
		return string(b.Type) // no other pod uses it, so the prefix does not matter
	case d == nil || d.PersistentVolumeClaim != nil:
		return ""
	case b.Database != nil:
		return string(b.Database.Dialect) + "\x00" + cs.Spec.KeyPrefix
	}
	return string(b.Type) + "\x00" + cs.Spec.KeyPrefix
}

// scattered reports whether keys are those of a Redis Cluster, where a cart has other keys.
func scattered(cs *v1alpha1.CartStorage) bool {
	r := cs.Spec.Backend.Redis
	return r != nil && r.Mode == v1alpha1.RedisCluster
}

// NeedsRestart names the settings that a change from was to is alters in the sidecar container itself, such as "image"
// and "ports". They take effect only in pods that start from then on. Everything else reaches running sidecars.
func NeedsRestart(was, is *v1alpha1.CartStorage) []string {
	return WantedOf(is, PodOptions{}).facts.differences(WantedOf(was, PodOptions{}).facts)
}
