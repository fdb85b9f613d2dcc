package memcached

import (
	"cmp"
	"crypto/md5" //nolint:gosec // the placement is that of libketama, which protects nothing
	"encoding/binary"
	"math"
	"net"
	"slices"
	"strconv"
)

// ring places keys on servers as libmemcached does for php-memcached, with Memcached::DISTRIBUTION_CONSISTENT and
// OPT_LIBKETAMA_COMPATIBLE: each server has some 160 points on a circle of 32 bits, and a key belongs to the server of
// the first point at or behind its own. So a server that comes or goes moves only the keys of its own share.
type ring []point

type point struct {
	at     uint32
	server int
}

// pointsPerHash is how many points one MD5 gives.
const pointsPerHash = 4

func newRing(addresses []string) ring {
	if len(addresses) < 2 {
		return nil
	}
	hashes := hashesPerServer(len(addresses))
	r := make(ring, 0, len(addresses)*hashes*pointsPerHash)
	for server, address := range addresses {
		name := pointName(address)
		for i := range hashes {
			sum := md5.Sum([]byte(name + "-" + strconv.Itoa(i))) //nolint:gosec // see the import
			for j := range pointsPerHash {
				r = append(r, point{binary.LittleEndian.Uint32(sum[4*j:]), server})
			}
		}
	}
	slices.SortStableFunc(r, func(a, b point) int { return cmp.Compare(a.at, b.at) })
	return r
}

// hashesPerServer is 40 or, by rounding, 39. The arithmetic is that of libmemcached, in single precision: where it
// rounds down, so must this.
func hashesPerServer(servers int) int {
	const points = 160
	share := float32(1) / float32(servers)
	n := float32(float32(float32(share*points)/pointsPerHash) * float32(servers))
	return int(math.Floor(float64(float32(float64(n) + 0.0000000001))))
}

// pointName is the server in the names of its points, in which libmemcached leaves out the default port.
func pointName(address string) string {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return address
	case port == "11211":
		return host
	}
	return host + ":" + port
}

// server is the index of the key's server.
func (r ring) server(key string) int {
	if len(r) == 0 {
		return 0
	}
	sum := md5.Sum([]byte(key)) //nolint:gosec // see the import
	i, _ := slices.BinarySearchFunc(r, binary.LittleEndian.Uint32(sum[:]), func(p point, at uint32) int { return cmp.Compare(p.at, at) })
	return r[i%len(r)].server
}
