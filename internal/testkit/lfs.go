package testkit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
)

// LFS is a stand-in of a Git LFS server beside git, whose handler answers all else.
// It has the batch API (git-lfs, docs/api/batch.md) and, as GitHub has it, its
// objects on another host, to which signed addresses lead: [LFS.Objects] serves that.
type LFS struct {
	git    http.Handler
	secret string
	host   string

	mu      sync.Mutex
	objects map[string][]byte // by their SHA-256 in hex
}

// NewLFS makes a server for whoever gives secret as the password of Basic. host is
// where its objects are.
func NewLFS(git http.Handler, secret, host string) *LFS {
	return &LFS{git: git, secret: secret, host: host, objects: map[string][]byte{lfsFoo: []byte("foo")}}
}

// lfsFoo is an object that is there from the start, by the SHA-256 of "foo".
const lfsFoo = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"

const lfsType = "application/vnd.git-lfs+json"

// lfsSignature stands in signed addresses, where Amazon's would.
const lfsSignature = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=5165"

// ServeHTTP answers the LFS API, and leaves git's own requests to git.
func (s *LFS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, rest, found := strings.Cut(r.URL.Path, "/info/lfs/")
	_, password, ok := r.BasicAuth()
	switch {
	case !found:
		s.git.ServeHTTP(w, r)
	case !ok || password != s.secret:
		w.Header().Set("LFS-Authenticate", `Basic realm="git"`)
		w.WriteHeader(http.StatusUnauthorized)
	case rest == "objects/batch":
		s.batch(w, r)
	default: // locking is optional
		w.WriteHeader(http.StatusNotFound)
	}
}

type lfsObject struct {
	OID     string               `json:"oid"`
	Size    int                  `json:"size"`
	Actions map[string]lfsAction `json:"actions,omitempty"`
}

type lfsAction struct {
	Href string `json:"href"`
}

func (s *LFS) batch(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Operation string
		Objects   []lfsObject
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	for i, o := range in.Objects {
		if !s.has(o.OID) || in.Operation == "download" {
			in.Objects[i].Actions = map[string]lfsAction{in.Operation: {"https://" + s.host + "/alambic/media/" + o.OID + "?" + lfsSignature}}
		}
	}
	w.Header().Set("Content-Type", lfsType)
	json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": in.Objects}) // the client's own affair
}

func (s *LFS) has(oid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[oid] != nil
}

// Objects gives and takes objects under signed addresses.
func (s *LFS) Objects() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		oid := path.Base(r.URL.Path)
		if r.URL.RawQuery != lfsSignature {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if r.Method == http.MethodPut {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxObject))
			sum := sha256.Sum256(body)
			if err != nil || hex.EncodeToString(sum[:]) != oid {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			s.mu.Lock()
			s.objects[oid] = body
			s.mu.Unlock()
			return
		}
		s.mu.Lock()
		body := s.objects[oid]
		s.mu.Unlock()
		if body == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(body) // the client's own affair
	})
}
