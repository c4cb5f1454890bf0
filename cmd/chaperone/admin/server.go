package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"chaperone/cmd/chaperone/problem"
	"chaperone/credential"
	"chaperone/policy/action"
	"chaperone/proxy/identity"
	"chaperone/store"
	"chaperone/store/replica"
)

// Options of a [Server]. All fields must be set.
type Options struct {
	Directory *identity.Directory
	Vault     *credential.Vault
	Catalogue func() *action.Catalogue // the one in force
	Metrics   http.Handler
	Logger    *slog.Logger // told of every change
	Status    func() Status
	Unready   func() string // why requests would be refused; empty: they are not
	// Reload builds policy and catalogue anew and swaps them in; on an error the
	// last good ones stay.
	Reload func(context.Context) error
	// Stages changes which policy is in force.
	Stages Stages
	// Flush brings what was decided into the file of the decision log.
	Flush func() error
	// Sign signs a checkpoint of the decision log as it is now.
	Sign func() error
	// Usable are the actions of a credential's services that policy may some day allow,
	// and whether that can be told.
	Usable func(credential.Credential) ([]credential.Usable, bool)
	// App returns the app through which people log in to a service.
	App func(ctx context.Context, service string) (credential.App, error)
	// ProxyURL is the proxy's address as agents dial it, with their credentials.
	ProxyURL func(agent, token string) string
	// Replicas lists those that share the store, with this one.
	Replicas func() []replica.Status
	// AskLog sends a question to the log of another replica and returns its answer.
	AskLog func(ctx context.Context, replica string, question []byte) (io.ReadCloser, error)
	// Confirm asks all replicas whether they have taken over what was changed, and
	// waits for them some time.
	Confirm func(context.Context) ([]replica.Ack, error)
}

// Server answers on the admin socket.
type Server struct {
	o      Options
	http   *http.Server
	logins *credential.Logins
}

// maxBody bounds a request on the socket, in bytes.
const maxBody = 1 << 20

// New returns a server.
func New(o Options) *Server {
	s := &Server{o: o, logins: credential.NewLogins(o.Vault)}
	mux := http.NewServeMux()
	mux.Handle("POST /v1/agents", answer(s.addAgent))
	mux.Handle("GET /v1/agents", answer(s.agents))
	mux.Handle("GET /v1/agents/{id}", answer(s.agent))
	mux.Handle("POST /v1/agents/{id}/suspend", answer(s.suspend))
	mux.Handle("POST /v1/agents/{id}/resume", answer(s.resume))
	mux.Handle("POST /v1/agents/{id}/retire", answer(s.retire))
	mux.Handle("POST /v1/credentials", answer(s.addCredential))
	mux.Handle("GET /v1/credentials", answer(s.credentials))
	mux.Handle("GET /v1/credentials/{id}", answer(s.credential))
	mux.Handle("POST /v1/credentials/{id}/replace", answer(s.replaceCredential))
	mux.Handle("DELETE /v1/credentials/{id}", answer(s.removeCredential))
	mux.Handle("POST /v1/sessions", answer(s.createSession))
	mux.Handle("GET /v1/sessions", answer(s.sessions))
	mux.Handle("GET /v1/sessions/{id}", answer(s.session))
	mux.Handle("POST /v1/sessions/{id}/heartbeat", answer(s.heartbeat))
	mux.Handle("POST /v1/revoke", answer(s.revoke))
	mux.Handle("GET /v1/replicas", answer(s.replicas))
	mux.HandleFunc("POST /v1/replicas/{id}/log", s.askLog)
	mux.Handle("GET /v1/humans", answer(s.humans))
	mux.Handle("POST /v1/humans/suspend", answer(s.suspendHuman))
	mux.Handle("POST /v1/humans/resume", answer(s.resumeHuman))
	mux.Handle("POST /v1/reload", answer(s.reload))
	mux.Handle("POST /v1/policy/promote", answer(s.promote))
	mux.Handle("POST /v1/policy/rollback", answer(s.rollback))
	mux.Handle("POST /v1/log/flush", answer(s.flush))
	mux.Handle("POST /v1/log/sign", answer(s.sign))
	mux.Handle("GET /v1/status", answer(s.status))
	s.routeLogins(mux)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.Handle("GET /metrics", o.Metrics)
	s.http = &http.Server{Handler: s.noting(mux), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second}
	return s
}

// Listen opens the socket at path with mode 0600. A socket that a dead process
// left is replaced; one that answers is an error.
func Listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, problem.Failure(fmt.Errorf("opening admin socket: %s is in use by another chaperone", path),
			"stop the other `chaperone serve`, or give this one its own admin: and state: in config.yaml")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening admin socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("opening admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("opening admin socket: %w", err)
	}
	return ln, nil
}

// Serve answers on ln until [Server.Close]. It always returns an error,
// [http.ErrServerClosed] after that.
func (s *Server) Serve(ln net.Listener) error { return s.http.Serve(ln) }

// Close ends it at once.
func (s *Server) Close() error { return s.http.Close() }

// noting logs every change that is asked for but heartbeats: its path, which holds
// ids only, and how it ended.
func (s *Server) noting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || strings.HasSuffix(r.URL.Path, "/heartbeat") {
			next.ServeHTTP(w, r)
			return
		}
		n := &noted{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(n, r)
		s.o.Logger.Info("admin", "change", r.Method+" "+r.URL.Path, "status", n.status)
	})
}

// noted remembers the status of an answer.
type noted struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (n *noted) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (n *noted) Unwrap() http.ResponseWriter { return n.ResponseWriter }

// answer decodes the request's body into In where it has one, and encodes what f
// returns or its error as a problem.
func answer[In, Out any](f func(*http.Request, In) (Out, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in In
		var out any
		err := decode(w, r, &in)
		if err == nil {
			out, err = f(r, in)
		}
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(statusOf(err))
			out = problem.Of(err)
		}
		json.NewEncoder(w).Encode(out) // a client that went away cannot be told
	})
}

func decode(w http.ResponseWriter, r *http.Request, in any) error {
	if r.Method != http.MethodPost {
		return nil
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return problem.Misuse("reading request: "+err.Error(), "use a chaperone of the same version as the proxy")
	}
	return nil
}

func statusOf(err error) int {
	for _, known := range []error{identity.ErrUnknownAgent, identity.ErrUnknownSession, identity.ErrUnknownTarget, credential.ErrUnknown} {
		if errors.Is(err, known) {
			return http.StatusNotFound
		}
	}
	if store.Away(err) || errors.Is(err, store.ErrStale) {
		return http.StatusServiceUnavailable
	}
	return http.StatusUnprocessableEntity
}

type none struct{}

func (s *Server) addAgent(r *http.Request, in AgentSpec) (identity.Agent, error) {
	return s.o.Directory.AddAgent(r.Context(), in.Name, in.Owner, in.Labels)
}

func (s *Server) agents(*http.Request, none) ([]identity.Agent, error) {
	return s.o.Directory.Agents(), nil
}

func (s *Server) agent(r *http.Request, _ none) (identity.Agent, error) {
	return s.o.Directory.Agent(r.PathValue("id"))
}

func (s *Server) addCredential(r *http.Request, in CredentialSpec) (credential.Credential, error) {
	if len(s.services(in.Service)) == 0 {
		return credential.Credential{}, problem.Failure(fmt.Errorf("service is not known: %s", in.Service),
			"see `chaperone service list`; services: in config.yaml adds others")
	}
	if in.Settings["string"] == "" && in.Settings["components"] == "" { // else it has a scheme of its own
		in.Settings = s.signing(in.Service, in.Kind, in.Settings)
	}
	if err := s.o.Vault.Add(r.Context(), in.Credential, secretOf(in.Secret)); err != nil {
		return credential.Credential{}, err
	}
	return s.o.Vault.Find(in.ID)
}

// signing is how a service, or the only one of a family that says so, has requests
// signed, with what the credential says itself.
func (s *Server) signing(of, kind string, own map[string]string) map[string]string {
	var scheme map[string]string
	for _, service := range s.services(of) {
		declared := map[string]map[string]string{credential.KindHMAC: service.HMAC, credential.KindHTTPSignature: service.HTTPSignature}[kind]
		if len(declared) == 0 {
			continue
		}
		if scheme != nil {
			return own // two ways: the credential has to say which
		}
		scheme = maps.Clone(declared)
	}
	if scheme == nil {
		return own
	}
	maps.Copy(scheme, own)
	return scheme
}

// services are those that a credential is for.
func (s *Server) services(of string) []*action.Service {
	var out []*action.Service
	for _, service := range s.o.Catalogue().Services() {
		if credential.Covers(of, service.Name) {
			out = append(out, service)
		}
	}
	return out
}

// union adds to a list what is not in it.
func union(list, more []string) []string {
	for _, x := range more {
		if !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	return list
}

// secretOf is what came with a request; nothing for a credential that has a source.
func secretOf(b []byte) credential.Secret {
	if len(b) == 0 {
		return credential.Secret{}
	}
	return credential.NewSecret(b)
}

func (s *Server) replaceCredential(r *http.Request, in Material) (credential.Credential, error) {
	if err := s.o.Vault.Replace(r.Context(), r.PathValue("id"), in.Source, secretOf(in.Secret)); err != nil {
		return credential.Credential{}, err
	}
	return s.o.Vault.Find(r.PathValue("id"))
}

func (s *Server) credentials(*http.Request, none) ([]credential.Credential, error) {
	return s.o.Vault.List(), nil
}

func (s *Server) credential(r *http.Request, _ none) (Credential, error) {
	c, err := s.o.Vault.Find(r.PathValue("id"))
	return Credential{Credential: c, Trouble: s.o.Vault.Trouble(c.ID)}, err
}

func (s *Server) removeCredential(r *http.Request, _ none) (none, error) {
	return none{}, s.o.Vault.Remove(r.Context(), r.PathValue("id"))
}

func (s *Server) createSession(r *http.Request, in identity.Spec) (Session, error) {
	made, err := s.o.Directory.CreateSession(r.Context(), in)
	if err != nil {
		return Session{}, err
	}
	out := Session{
		Session: made.Session, Token: made.Token, Handles: made.Handles, Variables: map[string][]string{},
		ProxyURL: s.o.ProxyURL(made.Agent, made.Token), Trust: s.o.Status().Trust,
	}
	for id, handle := range made.Handles {
		if parts := s.o.Vault.StandIns(id, handle); parts != nil {
			if out.StandIns == nil {
				out.StandIns = map[string]map[string]string{}
			}
			out.StandIns[id] = parts
		}
		files, err := s.o.Vault.Files(id, handle)
		if err != nil {
			return Session{}, err
		}
		if files != nil {
			if out.Files == nil {
				out.Files = map[string]map[string]string{}
			}
			out.Files[id] = files
		}
		if c, err := s.o.Vault.Find(id); err == nil && files["AWS_WEB_IDENTITY_TOKEN_FILE"] == "" { // else a key is what its variables are for
			for _, service := range s.services(c.Service) {
				out.Variables[id] = union(out.Variables[id], service.Env)
			}
		}
	}
	return out, nil
}

func (s *Server) sessions(*http.Request, none) ([]identity.Session, error) {
	return s.o.Directory.Sessions(), nil
}

func (s *Server) session(r *http.Request, _ none) (Shown, error) {
	x, err := s.o.Directory.Session(r.PathValue("id"))
	out := Shown{Session: x}
	for _, h := range s.o.Vault.Handles(x.ID) {
		out.Handles = append(out.Handles, Handle{ID: h.ID, Credential: h.Credential, Service: h.Service, Expires: h.Expires, Uses: h.Uses(), Limit: h.Limit, Revoked: h.Revoked()})
	}
	return out, err
}

func (s *Server) heartbeat(r *http.Request, _ none) (none, error) {
	return none{}, s.o.Directory.Renew(r.Context(), r.PathValue("id"))
}

func (s *Server) reload(r *http.Request, _ none) (Status, error) {
	err := s.o.Reload(r.Context())
	return s.o.Status(), err
}

func (s *Server) flush(*http.Request, none) (none, error) { return none{}, s.o.Flush() }

func (s *Server) sign(*http.Request, none) (none, error) { return none{}, s.o.Sign() }

func (s *Server) status(*http.Request, none) (Status, error) { return s.o.Status(), nil }

// readyz is 200 only while requests are accepted and decided.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if why := s.o.Unready(); why != "" {
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}
