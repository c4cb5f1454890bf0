package testkit

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// RedisGroup is several servers that belong together.
type RedisGroup struct {
	Servers  []*Redis // with sentinels: the master first, then its copies; in a cluster the masters first
	Sentinel *Redis
}

// Close ends all of them.
func (g *RedisGroup) Close() {
	if g.Sentinel != nil {
		g.Sentinel.Close()
	}
	for _, r := range g.Servers {
		r.Close()
	}
}

// Addrs are the addresses of the servers, with commas between.
func (g *RedisGroup) Addrs() string {
	var out []string
	for _, r := range g.Servers {
		out = append(out, r.Addr)
	}
	return strings.Join(out, ",")
}

// StartSentinel starts a master, a copy of it, and a sentinel that knows them as
// "main" and makes the copy master when the master is away for half a second.
func StartSentinel(ctx context.Context, dir string) (_ *RedisGroup, err error) {
	g := &RedisGroup{}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	for i := range 2 {
		o := RedisOptions{Dir: dir, Args: []string{"--repl-diskless-sync-delay", "0"}}
		if i == 1 {
			host, port, _ := net.SplitHostPort(g.Servers[0].Addr)
			o.Args = append(o.Args, "--replicaof", host+" "+port)
		}
		r, err := StartRedis(ctx, o)
		if err != nil {
			return g, err
		}
		g.Servers = append(g.Servers, r)
	}
	if err := settle(ctx, func() bool {
		text, err := g.Servers[1].Do(ctx, "INFO", "replication")
		return err == nil && strings.Contains(text, "master_link_status:up")
	}); err != nil {
		return g, fmt.Errorf("waiting for the copy: %w", err)
	}
	host, port, _ := net.SplitHostPort(g.Servers[0].Addr)
	conf := fmt.Sprintf("sentinel monitor main %s %s 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n", host, port)
	if err := os.WriteFile(filepath.Join(dir, "sentinel.conf"), []byte(conf), 0o600); err != nil {
		return g, fmt.Errorf("starting sentinel: %w", err)
	}
	if g.Sentinel, err = StartRedis(ctx, RedisOptions{Dir: dir, Sentinel: true}); err != nil {
		return g, err
	}
	err = settle(ctx, func() bool {
		text, err := g.Sentinel.Do(ctx, "SENTINEL", "replicas", "main")
		return err == nil && strings.Contains(text, "slave") && !strings.Contains(text, "s_down")
	})
	return g, err
}

// StartCluster starts a cluster of three masters with a copy each.
func StartCluster(ctx context.Context, dir string) (_ *RedisGroup, err error) {
	g := &RedisGroup{}
	defer func() {
		if err != nil {
			g.Close()
		}
	}()
	for i := range 6 {
		sub := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return g, err
		}
		r, err := StartRedis(ctx, RedisOptions{Dir: sub, Args: []string{"--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"}})
		if err != nil {
			return g, err
		}
		g.Servers = append(g.Servers, r)
	}
	if err := g.join(ctx); err != nil {
		return g, fmt.Errorf("making the cluster: %w", err)
	}
	return g, settle(ctx, func() bool {
		for _, r := range g.Servers {
			info, err := r.Do(ctx, "CLUSTER", "INFO")
			nodes, nerr := r.Do(ctx, "CLUSTER", "NODES")
			if err != nil || nerr != nil || !strings.Contains(info, "cluster_state:ok") || strings.Count(nodes, "slave") != 3 {
				return false
			}
		}
		return true
	})
}

// join gives each of the first three a third of the slots and one of the others.
func (g *RedisGroup) join(ctx context.Context) error {
	slots := [...][2]int{{0, 5460}, {5461, 10922}, {10923, 16383}}
	for i, r := range g.Servers {
		if i < len(slots) {
			if _, err := r.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", slots[i][0], slots[i][1]); err != nil {
				return err
			}
		}
		if _, err := r.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1); err != nil {
			return err
		}
		host, port, _ := net.SplitHostPort(g.Servers[0].Addr)
		if i > 0 {
			if _, err := r.Do(ctx, "CLUSTER", "MEET", host, port); err != nil {
				return err
			}
		}
	}
	for i := range slots {
		id, err := g.Servers[i].Do(ctx, "CLUSTER", "MYID")
		if err != nil {
			return err
		}
		if err := settle(ctx, func() bool {
			_, err := g.Servers[i+len(slots)].Do(ctx, "CLUSTER", "REPLICATE", id)
			return err == nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// settle asks until done says yes, for half a minute at most.
func settle(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
