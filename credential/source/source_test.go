package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chaperone/credential/internal/secret"
)

func fetch(t *testing.T, f Fetcher, ref, want string) Fetched {
	t.Helper()
	if err := f.Check(ref); err != nil {
		t.Fatalf("%s: %v", ref, err)
	}
	got, err := f.Fetch(t.Context(), ref)
	if err != nil || secret.Text(got.Secret) != want {
		t.Errorf("%s: got %q, %v, want %q", ref, secret.Text(got.Secret), err, want)
	}
	return got
}

func TestLocalSources(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	fetch(t, File{}, file, "one")
	write(`{"a":"two","n":7}`)
	fetch(t, File{}, file+"#a", "two")
	fetch(t, File{}, file+"#n", "7")
	env := Env{Lookup: func(name string) (string, bool) { return "three", name == "TOKEN" }}
	fetch(t, env, "TOKEN", "three")
	fetch(t, Command{}, "echo four", "four")
	for name, try := range map[string]func() error{
		"file, relative": func() error { return File{}.Check("token") },
		"env, none":      func() error { return env.Check("") },
		"command, none":  func() error { return Command{}.Check(" ") },
		"file, missing":  func() error { _, err := File{}.Fetch(t.Context(), dir+"/none"); return err },
		"file, no field": func() error { _, err := File{}.Fetch(t.Context(), file+"#none"); return err },
		"env, not set":   func() error { _, err := env.Fetch(t.Context(), "OTHER"); return err },
		"command, failed": func() error {
			_, err := Command{}.Fetch(t.Context(), "echo canary >&2; echo canary; exit 3")
			return err
		},
		"command, long": func() error {
			_, err := Command{}.Fetch(t.Context(), "head -c 100000 /dev/zero | tr '\\0' x")
			return err
		},
		"command, hangs": func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := Command{}.Fetch(ctx, "sleep 60")
			return err
		},
	} {
		if err := try(); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// vaultServer speaks as much of Vault's API as reading takes.
func vaultServer(t *testing.T) (*httptest.Server, *atomic.Int64, *atomic.Int64) {
	var made, renewed atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/secret/data/gh", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"lease_id":"","renewable":false,"lease_duration":0,"data":{"data":{"token":"kv2","n":1},"metadata":{"version":3}}}`)
	})
	mux.HandleFunc("GET /v1/kv/gh", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"lease_duration":2764800,"data":{"token":"kv1"}}`)
	})
	mux.HandleFunc("GET /v1/database/creds/agent", func(w http.ResponseWriter, _ *http.Request) {
		n := made.Add(1)
		fmt.Fprintf(w, `{"lease_id":"database/creds/agent/%d","renewable":true,"lease_duration":60,"data":{"username":"u%d","password":"p%d"}}`, n, n, n)
	})
	mux.HandleFunc("PUT /v1/sys/leases/renew", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Lease string `json:"lease_id"`
		}
		json.NewDecoder(r.Body).Decode(&in)
		if renewed.Add(1) > 2 || in.Lease != fmt.Sprint("database/creds/agent/", made.Load()) {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"errors":["lease expired canary"]}`)
			return
		}
		fmt.Fprintf(w, `{"lease_id":%q,"renewable":true,"lease_duration":60}`, in.Lease)
	})
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") != "root" || r.Header.Get("X-Vault-Namespace") != "team" {
			w.WriteHeader(403)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s, &made, &renewed
}

func TestVault(t *testing.T) {
	s, made, renewed := vaultServer(t)
	token := secret.New("root\n")
	v := &Vault{HTTP: s.Client().Transport, Address: s.URL, Namespace: "team", Token: func(context.Context) (secret.Secret, error) { return token, nil }}
	fetch(t, v, "secret/data/gh#token", "kv2")
	fetch(t, v, "secret/data/gh", `{"token":"kv2","n":1}`)
	fetch(t, v, "kv/gh#token", "kv1")
	for i, want := range []string{"p1", "p1", "p1", "p2"} { // two renewals, then the lease is at its end
		if got := fetch(t, v, "database/creds/agent#password", want); got.Valid != 40*time.Second {
			t.Errorf("%d: valid for %v", i, got.Valid)
		}
	}
	if made.Load() != 2 || renewed.Load() != 3 {
		t.Errorf("%d made, %d renewals", made.Load(), renewed.Load())
	}
	token = secret.New("other")
	if _, err := v.Fetch(t.Context(), "kv/gh"); err == nil || err.Error() != "it answers 403" {
		t.Errorf("with another token: %v", err)
	}
	for _, ref := range []string{"", "x", "../sys/x", "a/../b", "a/b#c d", "a/b?c=d"} {
		if err := v.Check(ref); !errors.Is(err, ErrForm) {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

// elsewhere sends everything to one server.
type elsewhere struct {
	to   *httptest.Server
	host string
}

func (e *elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	e.host = r.URL.Host
	r.URL.Host = strings.TrimPrefix(e.to.URL, "https://")
	return e.to.Client().Transport.RoundTrip(r)
}

func TestClouds(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in map[string]any
		json.NewDecoder(r.Body).Decode(&in)
		signed := strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIAX/")
		switch {
		case signed && r.Header.Get("X-Amz-Target") == "secretsmanager.GetSecretValue" && in["SecretId"] == "prod/gh":
			fmt.Fprint(w, `{"SecretString":"{\"token\":\"sm\"}"}`)
		case signed && r.Header.Get("X-Amz-Target") == "AmazonSSM.GetParameter" && in["Name"] == "/prod/gh":
			fmt.Fprint(w, `{"Parameter":{"Value":"ssm"}}`)
		case r.URL.Path == "/v1/projects/p/secrets/s/versions/latest:access" && r.Header.Get("Authorization") == "Bearer ya29":
			fmt.Fprint(w, `{"payload":{"data":"Z2NwCg=="}}`)
		default:
			w.WriteHeader(403)
		}
	}))
	defer s.Close()
	way := &elsewhere{to: s}
	keys := func(context.Context) (secret.Secret, error) {
		return secret.New(`{"AccessKeyId":"AKIAX","SecretAccessKey":"y"}`), nil
	}
	fetch(t, &Amazon{HTTP: way, Region: "eu-west-1", Service: "secretsmanager", Keys: keys}, "prod/gh#token", "sm")
	if way.host != "secretsmanager.eu-west-1.amazonaws.com" {
		t.Errorf("asked %s", way.host)
	}
	fetch(t, &Amazon{HTTP: way, Region: "eu-west-1", Service: "ssm", Keys: keys}, "/prod/gh", "ssm")
	fetch(t, &Google{HTTP: way, Token: func(context.Context) (secret.Secret, error) { return secret.New("ya29"), nil }}, "projects/p/secrets/s/versions/latest", "gcp\n")
}
