package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrNoRedis is returned where no redis-server is installed.
var ErrNoRedis = errors.New("redis-server is not installed (apt-get install redis-server)")

// RedisOptions describe a server.
type RedisOptions struct {
	Dir      string   // where it keeps its files; it must exist
	Sentinel bool     // a sentinel of the file sentinel.conf in Dir
	Args     []string // more of its command line, such as --requirepass x
	Password string   // by which the kit speaks with it
	Offline  bool     // it does not answer pings: it speaks TLS alone, say
}

// Redis is a real server on loopback. It ends with the parent, at the latest.
type Redis struct {
	Addr string
	o    RedisOptions
	cmd  *exec.Cmd
	done chan struct{}
	db   *redis.Client
}

// StartRedis starts a server on a free port, and returns once it answers.
func StartRedis(ctx context.Context, o RedisOptions) (*Redis, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, ErrNoRedis
	}
	addr, err := freeLowAddr()
	if err != nil {
		return nil, err
	}
	r := &Redis{Addr: addr, o: o}
	r.db = redis.NewClient(&redis.Options{Addr: addr, Password: o.Password, MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: 5 * time.Second})
	return r, r.Start(ctx)
}

// freeLowAddr is a free address whose port leaves room for a cluster's bus, which
// is 10,000 above it.
func freeLowAddr() (string, error) {
	for range 50 {
		addr, err := FreeAddr()
		if err != nil {
			return "", err
		}
		_, text, _ := net.SplitHostPort(addr)
		port, _ := strconv.Atoi(text)
		low := net.JoinHostPort("127.0.0.1", strconv.Itoa(12000+port%38000))
		if ln, err := net.Listen("tcp", low); err == nil {
			ln.Close()
			return low, nil
		}
	}
	return "", errors.New("looking for a free port: none below 50000")
}

// Start starts it again, with the files that it left.
func (r *Redis) Start(ctx context.Context) error {
	_, port, _ := net.SplitHostPort(r.Addr)
	args := []string{"--bind", "127.0.0.1", "--port", port, "--dir", r.o.Dir, "--save", "", "--dbfilename", "dump-" + port + ".rdb", "--loglevel", "warning"}
	if r.o.Sentinel {
		args = []string{filepath.Join(r.o.Dir, "sentinel.conf"), "--sentinel", "--bind", "127.0.0.1", "--port", port}
	}
	r.cmd = exec.Command("redis-server", append(args, r.o.Args...)...)
	log, err := os.OpenFile(filepath.Join(r.o.Dir, "redis-"+port+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("starting redis-server: %w", err)
	}
	defer log.Close()
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("starting redis-server: %w", err)
	}
	done := make(chan struct{})
	r.done = done
	go func() { r.cmd.Wait(); close(done) }()
	return r.await(ctx)
}

// await waits until it answers, or takes connections where it does not speak in clear.
func (r *Redis) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startup)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := r.db.Ping(ctx).Err()
		if r.o.Offline {
			var c net.Conn
			if c, err = net.DialTimeout("tcp", r.Addr, time.Second); err == nil {
				c.Close()
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-r.done:
			return fmt.Errorf("starting redis-server: it ended; see %s", r.o.Dir)
		case <-ctx.Done():
			return fmt.Errorf("waiting for redis-server: %w (%v)", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Do carries out one command and returns its answer as text.
func (r *Redis) Do(ctx context.Context, args ...any) (string, error) {
	v, err := r.db.Do(ctx, args...).Result()
	if err != nil {
		return "", fmt.Errorf("%v: %w", args[0], err)
	}
	return fmt.Sprint(v), nil
}

// Commands is how many commands clients have sent it. What scripts call is not counted.
func (r *Redis) Commands(ctx context.Context) (n float64, err error) {
	text, err := r.db.Info(ctx, "commandstats").Result()
	if err != nil {
		return 0, fmt.Errorf("reading the server's counts: %w", err)
	}
	for line := range strings.SplitSeq(text, "\r\n") {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		switch name {
		case "evalsha", "eval", "xread", "hget", "hscan", "smembers", "ping", "hello":
			count, _, _ := strings.Cut(rest, ",")
			calls, err := strconv.ParseFloat(count, 64)
			if err != nil {
				return 0, fmt.Errorf("reading the server's counts: %w", err)
			}
			n += calls
		}
	}
	return n, nil
}

// Client speaks with it directly.
func (r *Redis) Client() *redis.Client { return r.db }

// Pause stops the process where it is, and Resume lets it go on.
func (r *Redis) Pause() error { return r.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (r *Redis) Resume() error { return r.cmd.Process.Signal(syscall.SIGCONT) }

// Kill ends it with SIGKILL and waits for it.
func (r *Redis) Kill() {
	r.cmd.Process.Kill() // it may have ended by itself
	<-r.done
}

// Close ends it for good.
func (r *Redis) Close() {
	r.db.Close()
	r.Kill()
}
