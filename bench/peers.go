package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// The names of peers' roads.
const (
	squidRoad = "squid, ssl-bump"
	mitmRoad  = "mitmproxy"
)

// patience is how long a peer may take to listen.
const patience = 20 * time.Second

// peers adds the peers that are installed as roads, as their manuals set them up for
// interception, and says which are not and which do not start.
func (b *builder) peers() {
	for _, p := range []struct {
		name, bin string
		start     func(bin string, port int) (*exec.Cmd, []byte, error)
	}{{squidRoad, "squid", b.squid}, {mitmRoad, "mitmdump", b.mitmproxy}} {
		if err := b.peer(p.name, p.bin, p.start); err != nil {
			tell("no row for %s: %v", p.name, err)
		}
	}
}

func (b *builder) peer(name, program string, start func(bin string, port int) (*exec.Cmd, []byte, error)) error {
	bin, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	cmd, roots, err := start(bin, port)
	if err != nil {
		return err
	}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	if err := b.run(cmd, addr); err != nil {
		return err
	}
	b.roads = append(b.roads, road{name: name, pid: cmd.Process.Pid, peer: true, target: target{dial: addr, tunnel: true, roots: pool(roots), token: secret}})
	return nil
}

// run starts cmd and waits until it listens.
func (b *builder) run(cmd *exec.Cmd, addr string) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.stops = append(b.stops, func() {
		cmd.Process.Kill() // it has nothing to save
		cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("it does not listen: %w\n%s", err, out.Bytes())
		}
	}
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("looking for a port: %w", err)
	}
	return ln.Addr().(*net.TCPAddr).Port, ln.Close()
}

// pair writes the bench's CA with its key into one file.
func (b *builder) pair(name string) error {
	key, err := os.ReadFile(filepath.Join(b.dir, "ca.key"))
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(key, b.ca.PEM()...), 0o644)
}

// toService sends mitmproxy to the service, since it resolves names itself. It is the
// request that has another address: connections whose own is changed are used once.
const toService = `def requestheaders(flow):
    flow.request.host, flow.request.port = "127.0.0.1", %s
    flow.request.host_header = "%s"
    flow.request.stream = flow.request.method == "POST"

def responseheaders(flow):
    flow.response.stream = True

def server_connect(data):
    data.server.sni = "%s"
`

func (b *builder) mitmproxy(bin string, port int) (*exec.Cmd, []byte, error) {
	dir := filepath.Join(b.dir, "mitm")
	_, to, err := net.SplitHostPort(b.service)
	if err != nil {
		return nil, nil, err
	}
	script := fmt.Sprintf(toService, to, host, host)
	roots := filepath.Join(dir, "roots.pem")
	if err := errors.Join(os.Mkdir(dir, 0o700), b.pair(filepath.Join(dir, "mitmproxy-ca.pem")),
		os.WriteFile(filepath.Join(dir, "to.py"), []byte(script), 0o600), os.WriteFile(roots, b.ca.PEM(), 0o600)); err != nil {
		return nil, nil, err
	}
	return exec.Command(bin, "--quiet", "--listen-host", "127.0.0.1", "--listen-port", strconv.Itoa(port), "--set", "confdir="+dir,
		"--set", "ssl_verify_upstream_trusted_ca="+roots, "--set", "connection_strategy=lazy", "--scripts", filepath.Join(dir, "to.py")), b.ca.PEM(), nil
}

// squid has the service as its only parent, since it resolves names itself.
func (b *builder) squid(bin string, port int) (*exec.Cmd, []byte, error) {
	dir := filepath.Join(b.dir, "squid")
	_, to, err := net.SplitHostPort(b.service)
	if err != nil {
		return nil, nil, err
	}
	helper := "/usr/lib/squid/security_file_certgen"
	conf := fmt.Sprintf(`http_port 127.0.0.1:%d ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=16MB tls-cert=%s/ca.pem
sslcrtd_program %s -s %s/certs -M 16MB
acl one at_step SslBump1
ssl_bump bump all
http_access allow all
cache deny all
access_log none
cache_log %s/cache.log
pid_filename %s/pid
coredump_dir %s
hosts_file %s/hosts
acl ports port 443
cache_peer 127.0.0.1 parent %s 0 no-query originserver tls tls-cafile=%s/roots.pem tls-domain=%s forceddomain=%s
never_direct allow all
server_persistent_connections on
client_persistent_connections on
shutdown_lifetime 0 seconds
`, port, dir, helper, dir, dir, dir, dir, dir, to, dir, host, host)
	if err := errors.Join(os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777), os.Chmod(b.dir, 0o755), b.pair(filepath.Join(dir, "ca.pem")), os.WriteFile(filepath.Join(dir, "roots.pem"), b.ca.PEM(), 0o644),
		os.WriteFile(filepath.Join(dir, "hosts"), []byte("127.0.0.1 "+host+"\n"), 0o644), os.WriteFile(filepath.Join(dir, "squid.conf"), []byte(conf), 0o644)); err != nil {
		return nil, nil, err
	}
	if out, err := exec.Command(helper, "-c", "-s", filepath.Join(dir, "certs"), "-M", "16MB").CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("making its certificate store: %w\n%s", err, out)
	}
	exec.Command("chown", "-R", "proxy", dir).Run() // the user it changes to when root starts it
	return exec.Command(bin, "-N", "-f", filepath.Join(dir, "squid.conf")), b.ca.PEM(), nil
}
