package testserver

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// RedisCluster is a Redis Cluster. Nodes are its masters.
type RedisCluster struct {
	Nodes    []*Redis
	replicas []*Redis
	opts     []RedisOption
}

const slots = 16384

// StartRedisCluster starts a cluster of n masters that share the slots, and waits until every node knows the whole
// cluster.
func StartRedisCluster(tb TB, n int, opts ...RedisOption) *RedisCluster {
	tb.Helper()
	c := &RedisCluster{opts: opts}
	for range n {
		node, bus := c.start(tb)
		c.Nodes = append(c.Nodes, node)
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

// start starts a server that can join a cluster, and returns the port of its bus.
func (c *RedisCluster) start(tb TB) (node *Redis, bus int) {
	tb.Helper()
	bus, err := freePort()
	if err != nil {
		tb.Fatalf("port for the cluster bus: %v", err)
	}
	// By default the bus port is the port plus 10000, which may not exist.
	args := WithRedisArgs("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", strconv.Itoa(bus))
	return StartRedis(tb, append([]RedisOption{args}, c.opts...)...), bus
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
	return c.meet(node, bus)
}

// meet introduces a node to the first.
func (c *RedisCluster) meet(node *Redis, bus int) error {
	host, port, err := net.SplitHostPort(node.among())
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

// Addrs are the addresses of all nodes, with TLS if they speak it.
func (c *RedisCluster) Addrs() []string {
	addrs := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		addrs[i] = n.among()
	}
	return addrs
}

// AddReplicas gives each master a replica, and waits until every node knows the whole cluster. Replica i follows
// Nodes[i].
func (c *RedisCluster) AddReplicas(tb TB) []*Redis {
	tb.Helper()
	var added []*Redis
	for i, master := range c.Nodes {
		id, err := master.Do("CLUSTER", "MYID")
		if err != nil {
			tb.Fatalf("cluster: %v", err)
		}
		r, bus := c.start(tb)
		added = append(added, r)
		if err := c.meet(r, bus); err != nil {
			tb.Fatalf("cluster: %v", err)
		}
		// It cannot follow a node of which it has not heard yet.
		if err := poll(nil, func() error { _, err := r.Do("CLUSTER", "REPLICATE", id); return err }); err != nil {
			tb.Fatalf("cluster: replica %d: %v", i, err)
		}
		r.AwaitRole("slave")
	}
	c.replicas = append(c.replicas, added...)
	all := slices.Concat(c.Nodes, c.replicas)
	for _, node := range all {
		if err := poll(nil, func() error { return node.clusterOK(len(all)) }); err != nil {
			tb.Fatalf("cluster: node %s: %v", node.Addr, err)
		}
	}
	return added
}
