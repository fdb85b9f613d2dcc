package testserver

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// RedisCluster is a Redis Cluster of masters without replicas.
type RedisCluster struct {
	Nodes []*Redis
}

const slots = 16384

// StartRedisCluster starts a cluster of n masters that share the slots, and waits until every node knows the whole
// cluster.
func StartRedisCluster(tb TB, n int) *RedisCluster {
	tb.Helper()
	c := &RedisCluster{}
	for range n {
		bus, err := freePort()
		if err != nil {
			tb.Fatalf("port for the cluster bus: %v", err)
		}
		// By default the bus port is the port plus 10000, which may not exist.
		c.Nodes = append(c.Nodes, StartRedis(tb, WithRedisArgs("--cluster-enabled", "yes",
			"--cluster-node-timeout", "2000", "--cluster-port", strconv.Itoa(bus))))
		if err := c.join(len(c.Nodes)-1, n, bus); err != nil {
			tb.Fatalf("cluster: %v", err)
		}
	}
	for _, node := range c.Nodes {
		if err := poll(nil, func() error { return node.clusterOK(n) }); err != nil {
			tb.Fatalf("cluster: node %s: %v", node.Addr, err)
		}
	}
	return c
}

// join gives node i of n its slots and introduces it to the first.
func (c *RedisCluster) join(i, n, bus int) error {
	node := c.Nodes[i]
	first, last := i*slots/n, (i+1)*slots/n-1
	if _, err := node.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last)); err != nil {
		return err
	}
	if _, err := node.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
		return err
	}
	if i == 0 {
		return nil
	}
	host, port, err := net.SplitHostPort(node.Addr)
	if err != nil {
		return err
	}
	_, err = c.Nodes[0].Do("CLUSTER", "MEET", host, port, strconv.Itoa(bus))
	return err
}

// clusterOK is nil once the node sees all slots served by n nodes.
func (r *Redis) clusterOK(n int) error {
	info, err := r.Do("CLUSTER", "INFO")
	if err != nil {
		return err
	}
	for _, want := range []string{
		"cluster_state:ok", fmt.Sprintf("cluster_slots_ok:%d", slots), fmt.Sprintf("cluster_known_nodes:%d", n),
	} {
		if !strings.Contains(info, want+"\r\n") {
			return fmt.Errorf("not yet %s:\n%s", want, info)
		}
	}
	return nil
}

// Addrs are the addresses of all nodes.
func (c *RedisCluster) Addrs() []string {
	addrs := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		addrs[i] = n.Addr
	}
	return addrs
}

// SentinelMaster is the name under which [StartSentinel] watches its master.
const SentinelMaster = "shop"

// StartSentinel starts a Redis Sentinel that watches master, alone: one vote suffices for a failover.
func StartSentinel(tb TB, master *Redis) *Redis {
	tb.Helper()
	s := &Redis{process: newProcess(tb, "redis-server")}
	host, port, err := net.SplitHostPort(master.Addr)
	if err != nil {
		tb.Fatalf("address of the master: %v", err)
	}
	conf := filepath.Join(s.dir, "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 1\nsentinel down-after-milliseconds %[1]s 500\n"+
		"sentinel failover-timeout %[1]s 2000\n", SentinelMaster, host, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		tb.Fatalf("configuration of the sentinel: %v", err)
	}
	if err := s.launch(false, []string{conf, "--sentinel"}, nil); err != nil {
		tb.Fatalf("%v", err)
	}
	return s
}
