package action

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// pathServer is a server that answers with the path that it sees.
type pathServer struct{ addr string }

// ask sends a path as it is and returns the one that the server sees; ok is false when
// it refuses, hangs up, or sends the client elsewhere.
func (s *pathServer) ask(path string) (seen string, ok bool, err error) {
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		return "", false, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return "", false, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", false, nil
	}
	body, err := io.ReadAll(resp.Body)
	if field, found := resp.Header["X-Path"]; found && resp.StatusCode != http.StatusBadRequest {
		return strings.Trim(field[0], "[]"), true, err
	}
	return string(body), resp.StatusCode == http.StatusOK, err
}

// pathServers starts the servers that are on this machine: Go, nginx, Apache, Node,
// Python, PHP, Ruby and Java.
func pathServers(t *testing.T) map[string]*pathServer {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
	goServer := httptest.NewServer(mux)
	t.Cleanup(goServer.Close)
	servers := map[string]*pathServer{"go": {addr: goServer.Listener.Addr().String()}}
	for name, command := range map[string][]string{
		"nginx": {"/usr/sbin/nginx", "-p", "DIR", "-c", "DIR/nginx.conf"}, "apache": {"/usr/sbin/apache2", "-X", "-f", "DIR/apache.conf"},
		"node": {"node", "testdata/servers/path.js", "PORT"}, "python": {"/usr/bin/python3", "testdata/servers/path.py", "PORT"},
		"php": {"php", "-n", "-S", "127.0.0.1:PORT", "testdata/servers/path.php"}, "ruby": {"ruby", "testdata/servers/path.rb", "PORT"},
		"java": {"java", "-XX:TieredStopAtLevel=1", "testdata/servers/Path.java", "PORT"},
	} {
		if _, err := exec.LookPath(command[0]); err != nil {
			t.Logf("%s is not on this machine", name)
			continue
		}
		servers[name] = startPathServer(t, command)
	}
	for name, s := range servers {
		if err := s.await(t.Context()); err != nil {
			t.Logf("%s does not come up: %v", name, err)
			delete(servers, name)
		}
	}
	return servers
}

func startPathServer(t *testing.T, command []string) *pathServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	ln.Close()
	dir := t.TempDir()
	fill := strings.NewReplacer("PORT", port, "DIR", dir, "MODULES", "/usr/lib/apache2/modules")
	for _, conf := range []string{"nginx.conf", "apache.conf"} {
		b, err := os.ReadFile(filepath.Join("testdata/servers", conf))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, conf), []byte(fill.Replace(string(b))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := make([]string, len(command))
	for i, a := range command {
		args[i] = fill.Replace(a)
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = append(os.Environ(), "JAVA_TOOL_OPTIONS=")
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // nginx ends its worker
	c.WaitDelay = 2 * time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); _ = c.Wait() })
	return &pathServer{addr: addr}
}

// await waits until the server answers.
func (s *pathServer) await(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 15*time.Second)
	defer stop()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		seen, ok, err := s.ask("/ready")
		if err == nil && ok && seen == "/ready" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%q, %w", seen, ctx.Err())
		case <-tick.C:
		}
	}
}

// trickyPaths are paths made of pieces at which servers part, always the same.
func trickyPaths() []string {
	pieces := []string{"/", "/", "/", "a", "b", ".", "..", "...", "%2e", "%2E%2e", "%2f", "%2F", "%5c", "\\", ";x=y", "%3b", "%25", "%252e", "%252f", "%00", "%0a", "%09",
		"%20", "+", "~", "%7e", "%7E", "%E2%9C%93", "%C0%AF", "%E9", "é", ":", "@", "*", "%41", "'", "(", "|", "%7C", "{", "%7B", "!", "$", "&", "=", ",", "%3F", "%23", "%26", "_", "-"}
	random := rand.New(rand.NewPCG(1, 2))
	list := []string{"/repos/acme/web", "/a/", "/", "/a/.", "/a/..", "/a/b/../c", "//a", "/a//b", "/./a", "/a/%2e%2e/b", "/a;/../b", "/a%2f..%2fb", "/%2e/a", "/a/b;c", "/a%00b", "/a%3Fb", "/a%23b", "/a%25b", "/..;/a", "/a\\..\\b"}
	for range 400 {
		var path strings.Builder
		path.WriteString("/")
		for range 1 + random.IntN(7) {
			path.WriteString(pieces[random.IntN(len(pieces))])
		}
		list = append(list, path.String())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// TestServersSeeTheSamePath sends tricky paths raw to real servers: what passes here
// must be to each of them the path on which was decided, or be refused there.
func TestServersSeeTheSamePath(t *testing.T) {
	var group sync.WaitGroup
	paths := trickyPaths()
	for name, s := range pathServers(t) {
		group.Go(func() { s.compare(t, name, paths) })
	}
	group.Wait()
}

// compare sends all paths to one server. Some of those that are refused must show that
// they are refused for a reason, if the server cleans paths at all.
func (s *pathServer) compare(t *testing.T, name string, paths []string) {
	accepted, apart := 0, 0
	for _, path := range paths {
		flaw := pathFlaw(path, false)
		ours, _ := url.PathUnescape(path)
		seen, ok, err := s.ask(path)
		switch {
		case err != nil:
			t.Errorf("%s: %s: %v", name, path, err)
			return
		case flaw == "" && ok && seen != ours:
			t.Errorf("%q passes; %s sees %q", path, name, seen)
		case flaw == "" && !ok && name == "go":
			t.Errorf("%q passes; net/http refuses it", path)
		case flaw == "":
			accepted++
		case ok && seen != ours:
			apart++
		}
	}
	t.Logf("%s: %d paths pass and are the same; %d that are refused here are others there", name, accepted, apart)
	if accepted < 80 || apart == 0 && name != "php" && name != "go" {
		t.Errorf("%s: the paths show nothing: %d pass, %d are others", name, accepted, apart)
	}
}
