package peers

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// Identity is how replicas know each other: a key that each of them derives from the
// installation key, which all of them have and nobody else.
type Identity struct{ config *tls.Config }

// NewIdentity derives the identity from the installation key (RFC 5869). Whoever shows
// it at either end of a connection has that key: TLS 1.3 has both ends sign with it, and
// what else their certificates say does not matter.
func NewIdentity(installation []byte) (Identity, error) {
	seed, err := hkdf.Key(sha256.New, installation, nil, "chaperone log door", ed25519.SeedSize)
	if err != nil {
		return Identity{}, fmt.Errorf("deriving the replicas' key: %w", err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "chaperone replica"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no end
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return Identity{}, fmt.Errorf("making the replicas' certificate: %w", err)
	}
	own := key.Public().(ed25519.PublicKey)
	return Identity{&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		InsecureSkipVerify: true, // instead of a chain and a name, VerifyConnection wants this very key
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 1 && own.Equal(s.PeerCertificates[0].PublicKey) {
				return nil
			}
			return errors.New("the other end has another installation key")
		},
	}}, nil
}

// DoorOptions of a [Door]; all but Logger must be set.
type DoorOptions struct {
	Replica  string // who answers
	Log      Log
	Identity Identity
	Logger   *slog.Logger // told of each question; may be nil
}

// Door answers the other replicas' questions about this one's log.
type Door struct {
	o       DoorOptions
	http    *http.Server
	asking  chan struct{} // slots of questions that end
	tailing chan struct{} // slots of those that do not
}

// How many questions a door answers at once, those that follow apart; others wait.
const (
	askers  = 2
	tailers = 32
)

// Times of a connection: between beats, until who says nothing is given up, and for how
// long one that listens may be busy with what it was told.
const (
	beat     = 5 * time.Second
	silence  = 20 * time.Second
	patience = 10 * time.Minute
)

// maxQuestion bounds a question, in bytes.
const maxQuestion = 64 << 10

// path is where a door answers.
const path = "/v1/log"

// NewDoor returns a door; [Door.Serve] opens it.
func NewDoor(o DoorOptions) *Door {
	d := &Door{o: o, asking: make(chan struct{}, askers), tailing: make(chan struct{}, tailers)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, d.serve)
	d.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	return d
}

// Serve answers on ln until [Door.Close]. It always returns an error,
// [http.ErrServerClosed] after that.
func (d *Door) Serve(ln net.Listener) error {
	return d.http.Serve(tls.NewListener(ln, d.o.Identity.config.Clone()))
}

// Close ends it at once.
func (d *Door) Close() error { return d.http.Close() }

func (d *Door) serve(w http.ResponseWriter, r *http.Request) {
	s := &speaker{w: w, to: http.NewResponseController(w)}
	var q Question
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&q); err != nil {
		s.say(wire{Error: fmt.Sprintf("%v: %v; run the same version on all replicas", ErrQuestion, err)})
		return
	}
	if err := s.linger(r.Body); err != nil {
		return
	}
	if d.o.Logger != nil {
		d.o.Logger.Info("a replica reads the log", "from", r.RemoteAddr, "ask", q.Ask)
	}
	slots := d.asking
	if q.Ask == Follow {
		slots = d.tailing
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s.say(wire{Replica: d.o.Replica})
	defer s.beats(ctx, cancel)()
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return
	}
	for p, err := range d.o.Log.Ask(ctx, q) {
		last := pack(&p)
		if err != nil {
			last = wire{Error: err.Error()}
		}
		if s.say(last) != nil || err != nil {
			return
		}
	}
	s.say(wire{End: true})
}

// speaker writes pieces, one at a time.
type speaker struct {
	mu   sync.Mutex
	w    http.ResponseWriter
	to   *http.ResponseController
	line bytes.Buffer
}

// flushAt is how much is held back for one write while pieces come fast, in bytes.
const flushAt = 32 << 10

// linger ends the reading of a request, so that its answer may take its time and the
// server hears when the other end goes away.
func (s *speaker) linger(body io.Reader) error {
	if _, err := io.Copy(io.Discard, body); err != nil {
		return err
	}
	return s.to.SetReadDeadline(time.Time{})
}

func (s *speaker) say(piece wire) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := json.NewEncoder(&s.line)
	e.SetEscapeHTML(false) // lines go as they stand in the log, to the byte
	if err := e.Encode(piece); err != nil {
		return err
	}
	if s.line.Len() < flushAt && piece.Decision != nil && piece.Outcome != nil {
		return nil // the next beat, or the next piece, takes it along
	}
	return s.flush()
}

func (s *speaker) flush() error {
	if err := s.to.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := s.w.Write(s.line.Bytes())
	s.line.Reset()
	return errors.Join(err, s.to.Flush())
}

// beats flushes what is held back, and says now and then that the answer goes on. It
// ends the answer where nobody listens any more. What it returns waits for its end.
func (s *speaker) beats(ctx context.Context, cancel func()) func() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		tick := time.NewTicker(beat / 50)
		defer tick.Stop()
		quiet := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s.mu.Lock()
			var err error
			if s.line.Len() > 0 || time.Since(quiet) > beat {
				if s.line.Len() == 0 {
					s.line.WriteString("{}\n")
				}
				err = s.flush()
				quiet = time.Now()
			}
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}
