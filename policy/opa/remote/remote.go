// Package remote reads policy out of OPA's bundles, and follows a server of them.
package remote

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/keys"
	"github.com/open-policy-agent/opa/v1/logging"
	"github.com/open-policy-agent/opa/v1/plugins"
	plugin "github.com/open-policy-agent/opa/v1/plugins/bundle"
	"github.com/open-policy-agent/opa/v1/plugins/status"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

var (
	// ErrBundle is wrapped when a bundle cannot be read, or its signature does not hold.
	ErrBundle = errors.New("bundle is not sound")
	// ErrServer is wrapped when a server of bundles cannot be asked.
	ErrServer = errors.New("server of bundles cannot be asked")
)

// Signing says who must have signed a bundle. The zero value demands no signature.
type Signing struct {
	Key       string // PEM of a public key, or the secret of an HMAC
	Algorithm string // RS256 when empty
	Scope     string // that the signature must be for; empty: any
}

const keyID = "policy"

// maxBundle bounds a bundle, unpacked, in bytes.
const maxBundle = 256 << 20

// Open reads a bundle (a gzipped tar archive) and returns its policy as files, with the
// revision of its manifest.
func Open(r io.Reader, s Signing) (fs.FS, string, error) {
	br := bundle.NewReader(r).WithProcessAnnotations(true).WithRegoVersion(ast.RegoV1).WithSizeLimitBytes(maxBundle)
	if s.Key == "" {
		br = br.WithSkipBundleVerification(true)
	} else {
		key, err := keys.NewKeyConfig(s.Key, cmp.Or(s.Algorithm, "RS256"), s.Scope)
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", ErrBundle, err)
		}
		br = br.WithBundleVerificationConfig(bundle.NewVerificationConfig(map[string]*bundle.KeyConfig{keyID: key}, keyID, s.Scope, nil))
	}
	b, err := br.Read()
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrBundle, err)
	}
	files := map[string][]byte{}
	for _, m := range b.Modules {
		files[strings.TrimPrefix(m.Path, "/")] = m.Raw
	}
	out, err := assemble(files, b.Data)
	return out, b.Manifest.Revision, err
}

// assemble lays a policy out as files: grants apart, where they are read.
func assemble(files map[string][]byte, data map[string]any) (fs.FS, error) {
	own := map[string]any{}
	for k, v := range data {
		if k != "system" && k != "schema" && k != "cases" {
			own[k] = v
		}
	}
	if ours, ok := own["chaperone"].(map[string]any); ok && ours["grants"] != nil {
		rest := map[string]any{}
		maps.Copy(rest, ours)
		delete(rest, "grants")
		own["chaperone"] = rest
		b, err := json.Marshal(map[string]any{"grants": ours["grants"]})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBundle, err)
		}
		files["chaperone/grants.yaml"] = b // JSON is YAML
	}
	b, err := json.Marshal(own)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	files["data.json"] = b
	var packed bytes.Buffer
	w := zip.NewWriter(&packed)
	for name, content := range files {
		f, err := w.Create(path.Clean(name))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBundle, err)
		}
		f.Write(content) // into memory
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return zip.NewReader(bytes.NewReader(packed.Bytes()), int64(packed.Len()))
}

// Options of [Follow].
type Options struct {
	// URL is https://…/bundle.tar.gz, http:// on loopback, or oci://HOST/REPOSITORY:TAG
	// (oci+http:// on loopback).
	URL     string
	Signing Signing
	Token   string        // sent as a bearer credential, if there is one
	Poll    time.Duration // between two questions for a newer one: 60 s
	Dir     string        // for what is downloaded
	// Status is the URL of a service that speaks OPA's Status API: how each question to
	// the server of bundles ended is posted to Status/status. The token goes there only
	// where it is the same server. Empty: nothing is posted.
	Status string
	ID     string // of this program in the reports of status; chaperone when empty
	// Use is called with each policy that the server offers and that is sound, one at a
	// time. Its error says that the one before stays.
	Use func(files fs.FS, revision string) error
	// Failed is called where the server, or what it offers, is not sound.
	Failed func(error)
}

// Follower asks a server for newer bundles until it is closed.
type Follower struct {
	m     *plugins.Manager
	o     Options
	first chan struct{}
	once  sync.Once

	closing atomic.Bool

	mu      sync.Mutex
	active  string // revision of the last bundle that was used
	refused error  // of a later one, by Use
}

// Follow asks the server now and then: a bundle that did not change is not sent again
// (ETag).
func Follow(ctx context.Context, o Options) (*Follower, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	m, err := plugins.New(config, cmp.Or(o.ID, "chaperone"), inmem.New(), plugins.Logger(logging.NewNoOpLogger()),
		plugins.WithParserOptions(ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1}))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServer, err)
	}
	parsed, err := plugin.NewConfigBuilder().WithBytes(m.GetConfig().Bundles).WithServices(m.Services()).WithKeyConfigs(m.PublicKeys()).Parse()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServer, err)
	}
	f := &Follower{m: m, o: o, first: make(chan struct{})}
	p := plugin.New(parsed, m)
	p.Register("chaperone", f.status)
	m.Register(plugin.Name, p)
	if o.Status != "" {
		sc, err := status.NewConfigBuilder().WithBytes([]byte(`{"service": "status"}`)).WithServices(m.Services()).Parse()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrServer, err)
		}
		sp := status.New(sc, m)
		m.Register(status.Name, sp)
		p.Register("status", func(s plugin.Status) { sp.BulkUpdateBundleStatus(map[string]*plugin.Status{s.Name: f.truly(s)}) })
	}
	m.RegisterCompilerTrigger(f.activated)
	if err := m.Start(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrServer, err)
	}
	return f, nil
}

func (o *Options) config() ([]byte, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%w: %q is no URL of a bundle", ErrServer, o.URL)
	}
	seconds := max(1, int64(o.Poll/time.Second))
	if o.Poll == 0 {
		seconds = 60
	}
	service := map[string]any{"response_header_timeout_seconds": 10}
	b := map[string]any{"service": "policy", "polling": map[string]any{"min_delay_seconds": seconds, "max_delay_seconds": seconds}, "size_limit_bytes": maxBundle}
	switch u.Scheme {
	case "oci", "oci+http":
		service["type"] = "oci"
		service["url"] = map[string]string{"oci": "https://", "oci+http": "http://"}[u.Scheme] + u.Host
		b["resource"] = u.Host + u.Path
	case "http", "https":
		service["url"] = u.Scheme + "://" + u.Host
		b["resource"] = strings.TrimPrefix(u.RequestURI(), "/")
	default:
		return nil, fmt.Errorf("%w: %q is neither https:// nor oci://", ErrServer, o.URL)
	}
	if o.Token != "" {
		service["credentials"] = map[string]any{"bearer": map[string]any{"token": o.Token}}
	}
	all := map[string]any{"services": map[string]any{"policy": service}, "bundles": map[string]any{"policy": b}, "persistence_directory": o.Dir}
	if o.Status != "" {
		at, err := url.Parse(o.Status)
		if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
			return nil, fmt.Errorf("%w: %q is no URL of a status service", ErrServer, o.Status)
		}
		service := map[string]any{"url": strings.TrimSuffix(o.Status, "/"), "response_header_timeout_seconds": 10}
		if o.Token != "" && at.Scheme == u.Scheme && at.Host == u.Host {
			service["credentials"] = map[string]any{"bearer": map[string]any{"token": o.Token}}
		}
		all["services"].(map[string]any)["status"] = service
		all["status"] = map[string]any{"service": "status"}
		all["labels"] = map[string]string{"app": "chaperone"}
	}
	if o.Signing.Key != "" {
		b["signing"] = map[string]any{"keyid": keyID, "scope": o.Signing.Scope}
		key := map[string]any{"key": o.Signing.Key}
		if o.Signing.Algorithm != "" {
			key["algorithm"] = o.Signing.Algorithm
		}
		all["keys"] = map[string]any{keyID: key}
	}
	return json.Marshal(all)
}

// status hears how a question to the server ended.
func (f *Follower) status(s plugin.Status) {
	if s.Code == "" || f.closing.Load() {
		return
	}
	kind := ErrBundle
	if s.HTTPCode != "" || strings.HasPrefix(s.Message, "request failed") || strings.HasPrefix(s.Message, "server replied") {
		kind = ErrServer
	}
	parts := []string{s.Message}
	for _, e := range s.Errors {
		parts = append(parts, e.Error())
	}
	f.o.Failed(fmt.Errorf("%w: %s: %s", kind, f.o.URL, strings.Join(parts, "; ")))
}

// truly is a report that says what is in force: OPA holds for active what it has
// unpacked, also where this program refuses it.
func (f *Follower) truly(s plugin.Status) *plugin.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.ActiveRevision = f.active
	if f.refused != nil && s.Code == "" {
		s.Code, s.Message = "bundle_error", f.refused.Error()
	}
	return &s
}

// activated takes a bundle out of the manager's store.
func (f *Follower) activated(txn storage.Transaction) {
	ctx := context.Background()
	ids, err := f.m.Store.ListPolicies(ctx, txn)
	if err != nil || len(ids) == 0 {
		return // at the start there is none
	}
	files := map[string][]byte{}
	for _, id := range ids {
		raw, err := f.m.Store.GetPolicy(ctx, txn, id)
		if err != nil {
			f.o.Failed(fmt.Errorf("%w: %w", ErrBundle, err))
			return
		}
		files[strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(id, "/"), "policy"), "/")] = raw
	}
	v, err := f.m.Store.Read(ctx, txn, storage.Path{})
	data, ok := v.(map[string]any)
	if err != nil || !ok {
		f.o.Failed(fmt.Errorf("%w: reading its data: %w", ErrBundle, err))
		return
	}
	out, err := assemble(files, data)
	if err != nil {
		f.o.Failed(err)
		return
	}
	revision, _ := bundle.ReadBundleRevisionFromStore(ctx, f.m.Store, txn, "policy")
	err = f.o.Use(out, revision)
	f.mu.Lock()
	f.refused = err
	if err == nil {
		f.active = revision
	}
	f.mu.Unlock()
	f.once.Do(func() { close(f.first) })
}

// First is closed when the first policy has been used.
func (f *Follower) First() <-chan struct{} { return f.first }

// Close ends the questions and waits for what runs.
func (f *Follower) Close() {
	f.closing.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	f.m.Stop(ctx)
}
