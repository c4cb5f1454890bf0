package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"chaperone/internal/testkit"
)

// TestRedisKnowsNothing lets somebody read all that Redis has and hears while a session
// is made, used, suspended and revoked: its values, its files, and each command. There is
// nothing in it that can be used, or that says who acts for whom.
func TestRedisKnowsNothing(t *testing.T) {
	dir := t.TempDir()
	r, err := testkit.StartRedis(t.Context(), testkit.RedisOptions{Dir: dir, Args: []string{"--appendonly", "yes", "--appendfsync", "always", "--rdbcompression", "no"}})
	if errors.Is(err, testkit.ErrNoRedis) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(r.Close)
	heard := listen(t, r)
	const control = "a-control-that-is-found"
	must(t, r.Client().Set(t.Context(), "control", control, 0).Err())

	f := assembleFleet(t, 2, r.Addr, 30e9, func(way string) string { return "redis://" + way })
	const person, owner, purpose, reason = "canary.person@example.org", "canary.owner@example.org", "canary purpose", "canary reason"
	f.verb(0, "", "agent", "add", "canary-agent", "--owner", owner)
	f.verb(1, "canary-secret", "credential", "add", "canary-credential", "--service", "acme", "--owner", "human:"+person, "--kind", "bearer", "--from-stdin")
	var m member
	must(t, json.Unmarshal([]byte(f.verb(0, "", "session", "create", "--agent", "bot", "--human", person, "--purpose", purpose, "--credential", "acme", "--format", "json")), &m))
	for i := range f.replicas {
		if got := ask(t.Context(), f.client(i, m), m, "/once/"+m.Session+"/x"); got != http.StatusOK {
			t.Fatalf("replica %d answers %d", i, got)
		}
	}
	f.verb(1, "", "human", "suspend", person, "--reason", reason)
	f.verb(0, "", "human", "resume", person)
	f.verb(1, "", "revoke", "--session", m.Session, "--reason", reason)

	if _, err := r.Do(t.Context(), "SAVE"); err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{"its values": values(t, r), "what it heard": heard(), "its files": files(t, dir)}
	secrets := []string{"acme-secret", "canary-secret", m.Token, m.Handles["acme"], m.Session, strings.Repeat("k", 32), person, owner, purpose, reason, "canary-agent", "canary-credential", "acme.example.com"}
	for where, b := range all {
		if !bytes.Contains(b, []byte(control)) {
			t.Errorf("%s: not even the control is in these %d bytes", where, len(b))
		}
		for _, secret := range secrets {
			for how, form := range map[string]string{"in clear": secret, "in hex": hex.EncodeToString([]byte(secret)), "in base64": base64.RawStdEncoding.EncodeToString([]byte(secret))} {
				if bytes.Contains(b, []byte(form)) {
					t.Errorf("%s: %q is there %s", where, secret, how)
				}
			}
		}
	}
}

// listen hears every command that a server is sent from now on. What it returns ends
// that, and says what was heard.
func listen(t *testing.T, r *testkit.Redis) func() []byte {
	t.Helper()
	const last = "that-was-all"
	c, err := net.Dial("tcp", r.Addr)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	_, err = io.WriteString(c, "MONITOR\r\n")
	must(t, err)
	in := bufio.NewReader(c)
	_, err = in.ReadString('\n')
	must(t, err)
	var heard []byte
	var all sync.WaitGroup
	all.Go(func() {
		for line, err := in.ReadBytes('\n'); err == nil && !bytes.Contains(line, []byte(last)); line, err = in.ReadBytes('\n') {
			heard = append(heard, line...)
		}
	})
	return func() []byte {
		_, err := r.Do(t.Context(), "ECHO", last)
		must(t, err)
		all.Wait()
		return heard
	}
}

// values are all keys of a server with what they hold, as it gives them.
func values(t *testing.T, r *testkit.Redis) []byte {
	t.Helper()
	var b bytes.Buffer
	c, ctx := r.Client(), t.Context()
	keys, err := c.Keys(ctx, "*").Result()
	must(t, err)
	for _, k := range keys {
		kind, err := c.Type(ctx, k).Result()
		must(t, err)
		b.WriteString(k + "\n")
		switch kind {
		case "string":
			b.WriteString(c.Get(ctx, k).Val())
		case "hash":
			for field, value := range c.HGetAll(ctx, k).Val() {
				b.WriteString(field + " " + value + "\n")
			}
		case "set":
			b.WriteString(strings.Join(c.SMembers(ctx, k).Val(), "\n"))
		case "zset":
			b.WriteString(strings.Join(c.ZRange(ctx, k, 0, -1).Val(), "\n"))
		case "stream":
			for _, m := range c.XRange(ctx, k, "-", "+").Val() {
				for field, value := range m.Values {
					text, _ := value.(string)
					b.WriteString(field + " " + text + "\n")
				}
			}
		default:
			t.Errorf("%s is a %s, which this test cannot read", k, kind)
		}
	}
	return b.Bytes()
}

// files are the contents of all files below a directory.
func files(t *testing.T, dir string) (all []byte) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		all = append(all, b...)
		return err
	}))
	return all
}
