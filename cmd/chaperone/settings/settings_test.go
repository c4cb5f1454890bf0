package settings

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown keys", "lisen: x\nlog: {pth: y}\n", "line 1: unknown key lisen|line 2: unknown key pth"},
		{"twice", "state: a\nstate: b\n", "line 2: key state stands twice, first in line 1"},
		{"kinds", "drain: soon\nservices: 7\nlog: {keep: many}\n", `line 1: expected a duration such as 30s or 12h, found the text "soon"|line 2: expected a list, found the int "7"|line 3: expected a whole number, found the text "many"`},
		{"addresses", "listen: nowhere\nmetrics: 1.2.3.4:99999\nadmin: /tmp/x\n", `line 1: listen: "nowhere" is not HOST:PORT|line 2: metrics: "1.2.3.4:99999" is not HOST:PORT|line 3: admin: "/tmp/x" is not unix:PATH`},
		{"empty where that weakens", "state: ''\n", "line 1: state: must not be empty"},
		{"half a pair", "ca: {cert: x}\n", "line 1: ca: cert and key come together"},
		{"two references", "key: {file: x, env: Y}\n", "line 1: key: file, env, command and keyring exclude each other"},
		{"store", "store: sqlite\n", `line 1: store: "sqlite" is not a store that this program has; use bolt or redis://HOST:PORT`},
		{"upstream", "upstream:\n  allow_private: [10.0.0.0/8, here]\n  resolve: {a.example: b}\n  proxy: http://u:p@h:1\n", `line 2: upstream.allow_private.1: "here" is neither a network (10.0.0.0/8), an address nor HOST:PORT|line 3: upstream.resolve.a.example: "b" is not ADDRESS:PORT|line 4: upstream.proxy: a password does not belong into this file`},
		{"services", "services: [{service: a}, {service: a}, {}]\n", "line 1: services.1: service a stands twice|line 1: services.2: service: the name is missing"},
		{"status", "policy: {path: rego, status: opa}\n", `line 1: policy.status: "opa" is no URL such as https://HOST|line 1: policy.status: it is told about bundles of a server, and policy.path names none`},
		{"negative", "drain: -1s\nlog: {keep: -1}\n", "line 1: drain: -1s is negative|line 2: log: max_size, max_age and keep must not be negative"},
		{"waits", "sources: {timeout: 0s, token_timeout: 1h}\n", "line 1: sources.timeout: 0s is not between 0 and 5m0s|line 1: sources.token_timeout: 1h0m0s is not between 0 and 5m0s"},
		{"long socket", "admin: unix:/" + strings.Repeat("x", 110) + "\n", "admin: /" + strings.Repeat("x", 110) + " is 111 bytes long, and a socket's path has at most 103; name a shorter one"},
		{"no YAML", "listen: [\n", "line 1: did not find expected node content"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Load(path)
			faults, ok := errors.AsType[*Faults](err)
			if !ok {
				t.Fatalf("Load: %v", err)
			}
			lines := strings.Split(faults.Error(), "\n")[1:]
			for i := range lines {
				lines[i] = strings.TrimSpace(lines[i])
			}
			if got := strings.Join(lines, "|"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(path, []byte("state: here\npolicy: {path: ../rego}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want string }{
		{s.Listen, "127.0.0.1:8080"}, {s.State, filepath.Join(dir, "here")}, {s.Admin, filepath.Join(dir, "here", "admin.sock")},
		{s.Log.Path, filepath.Join(dir, "here", "decisions.jsonl")}, {s.Policy.Path, filepath.Join(filepath.Dir(dir), "rego")}, {s.UnknownHosts, DenyUnknown},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
	if s.Drain != 30*time.Second {
		t.Errorf("drain %v", s.Drain)
	}
}

// TestShippedFile holds the file that is the reference against the defaults.
func TestShippedFile(t *testing.T) {
	path := filepath.Join("..", "..", "..", "config.yaml")
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := LoadDefault(filepath.Join(filepath.Dir(path), "no-such-file.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Listen != d.Listen || s.State != d.State || s.Admin != d.Admin || !reflect.DeepEqual(s.Log, d.Log) || s.Drain != d.Drain || s.UnknownHosts != d.UnknownHosts || s.Store != d.Store || !reflect.DeepEqual(s.Sources, d.Sources) {
		t.Errorf("config.yaml states other defaults than the program's:\n%+v\n%+v", s, d)
	}
	if filepath.Base(s.Policy.Path) != "rego" {
		t.Errorf("policy %s", s.Policy.Path)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:1\n"))
	f.Add([]byte("upstream: {allow_private: {a: b}}\nservices: [1, {paths: {x: 1}}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, faults := parse(b)
		if s == nil && len(faults) == 0 {
			t.Error("neither settings nor faults")
		}
	})
}
