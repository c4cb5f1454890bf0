package remote

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"

	"chaperone/policy/opa"
)

const secret = "the secret of the bundles"

// made is a bundle whose policy gives one reason, signed with key where there is one.
func made(t *testing.T, reason, key string) []byte {
	t.Helper()
	src := []byte("package chaperone\n\ndecision := {\"result\": \"deny\", \"reasons\": [\"" + reason + "\"]}\n")
	m, err := ast.ParseModule("decision.rego", string(src))
	if err != nil {
		t.Fatal(err)
	}
	b := bundle.Bundle{Manifest: bundle.Manifest{Revision: reason, Roots: &[]string{"chaperone"}}, Data: map[string]any{"chaperone": map[string]any{"grants": map[string]any{"agents": map[string]any{}}}},
		Modules: []bundle.ModuleFile{{URL: "/chaperone/decision.rego", Path: "/chaperone/decision.rego", Raw: src, Parsed: m}}}
	if key != "" {
		if err := b.GenerateSignature(bundle.NewSigningConfig(key, "HS256", ""), keyID, false); err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	if err := bundle.NewWriter(&buf).Write(b); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func loads(t *testing.T, files fs.FS) {
	t.Helper()
	e, err := opa.Load(opa.Options{FS: files})
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	if b, err := fs.ReadFile(files, "chaperone/grants.yaml"); err != nil || !strings.Contains(string(b), "agents") {
		t.Errorf("grants: %s, %v", b, err)
	}
}

func TestOpen(t *testing.T) {
	signed := Signing{Key: secret, Algorithm: "HS256"}
	for name, tc := range map[string]struct {
		bytes []byte
		s     Signing
		want  string
	}{
		"unsigned, none demanded": {made(t, "one", ""), Signing{}, ""},
		"signed":                  {made(t, "one", secret), signed, ""},
		"unsigned":                {made(t, "one", ""), signed, ".signatures.json"},
		"by another":              {made(t, "one", "another secret of the bundles"), signed, "verify"},
		"cut short":               {made(t, "one", secret)[:100], signed, "EOF"},
		"no bundle":               {[]byte("hello"), signed, "archive"},
	} {
		files, revision, err := Open(bytes.NewReader(tc.bytes), tc.s)
		if tc.want == "" {
			if err != nil || revision != "one" {
				t.Errorf("%s: %q, %v", name, revision, err)
				continue
			}
			loads(t, files)
		} else if !errors.Is(err, ErrBundle) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// server is a server of bundles that knows ETags.
type server struct {
	mu    sync.Mutex
	body  []byte
	odd   http.HandlerFunc // in place of the bundle
	sent  int
	asked chan struct{}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		select {
		case s.asked <- struct{}{}:
		default:
		}
	}()
	if r.Header.Get("Authorization") != "Bearer token" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if s.odd != nil {
		s.odd(w, r)
		return
	}
	etag := fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(s.body)))
	w.Header().Set("Etag", etag)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	s.sent++
	w.Write(s.body)
}

func (s *server) offer(b []byte, odd http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body, s.odd = b, odd
}

func next[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// TestFollow offers bundles that are sound, not signed, cut short, and unchanged.
func TestFollow(t *testing.T) {
	s := &server{body: made(t, "one", secret), asked: make(chan struct{}, 100)}
	web := httptest.NewServer(s)
	defer web.Close()
	used, failed := make(chan string, 10), make(chan error, 100)
	f, err := Follow(t.Context(), Options{
		URL: web.URL + "/bundles/policy.tar.gz", Signing: Signing{Key: secret, Algorithm: "HS256"}, Token: "token", Poll: time.Second, Dir: t.TempDir(),
		Use: func(files fs.FS, revision string) error { loads(t, files); used <- revision; return nil }, Failed: func(err error) { failed <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := next(t, used); got != "one" {
		t.Errorf("got %s", got)
	}
	<-f.First()
	next(t, s.asked)
	next(t, s.asked) // unchanged: it is not sent again
	s.offer(made(t, "evil", ""), nil)
	if err := next(t, failed); !errors.Is(err, ErrBundle) || !strings.Contains(err.Error(), ".signatures.json") {
		t.Errorf("unsigned: %v", err)
	}
	s.offer(nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10000")
		w.Write(made(t, "lies", secret)[:100])
	})
	for {
		if err := next(t, failed); strings.Contains(err.Error(), "EOF") {
			break
		}
	}
	s.offer(made(t, "two", secret), nil)
	if got := next(t, used); got != "two" {
		t.Errorf("got %s", got)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent < 3 || len(used) != 0 {
		t.Errorf("sent %d times, used %d more", s.sent, len(used))
	}
}

// report is the part of OPA's status update that is looked at.
type report struct {
	Labels  map[string]string
	Bundles map[string]struct {
		ActiveRevision string `json:"active_revision"`
		Code, Message  string
	}
}

// TestStatus reads what is posted to OPA's status service: which policy is in force,
// and why one that was offered is not.
func TestStatus(t *testing.T) {
	s := &server{body: made(t, "one", secret), asked: make(chan struct{}, 100)}
	reports := make(chan report, 1000)
	mux := http.NewServeMux()
	mux.Handle("/", s)
	mux.HandleFunc("POST /status", func(w http.ResponseWriter, r *http.Request) {
		var got report
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.Header.Get("Authorization") != "Bearer token" {
			t.Errorf("%v, %v", err, r.Header)
		}
		reports <- got
	})
	web := httptest.NewServer(mux)
	defer web.Close()
	f, err := Follow(t.Context(), Options{
		URL: web.URL + "/policy.tar.gz", Status: web.URL, ID: "r_1", Signing: Signing{Key: secret, Algorithm: "HS256"}, Token: "token", Poll: time.Second, Dir: t.TempDir(),
		Use: func(_ fs.FS, revision string) error {
			if revision == "faulty" {
				return errors.New("it has a fault")
			}
			return nil
		},
		Failed: func(error) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	until := func(what string, ok func(report) bool) {
		t.Helper()
		for {
			r := next(t, reports)
			if b := r.Bundles["policy"]; b.ActiveRevision != "" && b.ActiveRevision != "one" {
				t.Fatalf("%s: %+v", what, r)
			}
			if ok(r) {
				return
			}
		}
	}
	until("in force", func(r report) bool {
		return r.Labels["id"] == "r_1" && r.Bundles["policy"].ActiveRevision == "one" && r.Bundles["policy"].Code == ""
	})
	s.offer(made(t, "evil", ""), nil)
	until("unsigned", func(r report) bool {
		return r.Bundles["policy"].Code == "bundle_error" && r.Bundles["policy"].ActiveRevision == "one"
	})
	s.offer(made(t, "faulty", secret), nil)
	until("faulty", func(r report) bool { return strings.Contains(r.Bundles["policy"].Message, "it has a fault") })
}

// TestStatusElsewhere: the token for the server of bundles goes nowhere else.
func TestStatusElsewhere(t *testing.T) {
	s := &server{body: made(t, "one", ""), asked: make(chan struct{}, 100)}
	web := httptest.NewServer(s)
	defer web.Close()
	got := make(chan string, 100)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.URL.Path + r.Header.Get("Authorization") }))
	defer other.Close()
	f, err := Follow(t.Context(), Options{URL: web.URL + "/policy.tar.gz", Status: other.URL + "/opa/", Token: "token", Poll: time.Second, Dir: t.TempDir(),
		Use: func(fs.FS, string) error { return nil }, Failed: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text := next(t, got); text != "/opa/status" {
		t.Errorf("posted to %s", text)
	}
}

// TestRegistry takes a bundle from a registry that speaks the reading half of the OCI
// distribution specification.
func TestRegistry(t *testing.T) {
	layer, config := made(t, "from the registry", secret), []byte("{}")
	digest := func(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
	blob := func(b []byte, kind string) map[string]any {
		return map[string]any{"mediaType": kind, "digest": digest(b), "size": len(b)}
	}
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": blob(config, "application/vnd.oci.image.config.v1+json"), "layers": []any{blob(layer, "application/vnd.oci.image.layer.v1.tar+gzip")}})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := map[string][]byte{"/v2/": {}, "/v2/team/policy/manifests/1.0": manifest, "/v2/team/policy/manifests/" + digest(manifest): manifest,
			"/v2/team/policy/blobs/" + digest(layer): layer, "/v2/team/policy/blobs/" + digest(config): config}
		b, ok := answer[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		}
		w.Header().Set("Docker-Content-Digest", digest(b))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	defer web.Close()
	used := make(chan string, 10)
	f, err := Follow(t.Context(), Options{
		URL: "oci+http://" + strings.TrimPrefix(web.URL, "http://") + "/team/policy:1.0", Signing: Signing{Key: secret, Algorithm: "HS256"}, Poll: time.Second, Dir: t.TempDir(),
		Use: func(files fs.FS, revision string) error { loads(t, files); used <- revision; return nil }, Failed: func(err error) { t.Log(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := next(t, used); got != "from the registry" {
		t.Errorf("got %s", got)
	}
}

func TestFollowRefuses(t *testing.T) {
	if f, err := Follow(t.Context(), Options{URL: "https://x/y", Status: "x", Dir: t.TempDir()}); !errors.Is(err, ErrServer) {
		t.Errorf("status: %v, %v", f, err)
	}
	for _, u := range []string{"", "ftp://x/y", "https://", "bundle"} {
		if f, err := Follow(t.Context(), Options{URL: u, Dir: t.TempDir()}); !errors.Is(err, ErrServer) {
			t.Errorf("%q: %v, %v", u, f, err)
		}
	}
}
