package testkit

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxPush bounds what is held of one push, in bytes.
const maxPush = 64 << 20

// Git serves the bare repositories below root with git's own http-backend, to
// whoever gives secret as the password of Basic (RFC 7617). It answers others with
// 401 first, as git expects. Repositories are made with [InitRepo].
func Git(root, secret string) (http.Handler, error) {
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("asking git for its programs: %w", err)
	}
	backend := cgi.Handler{
		Path:   filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:    []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "REMOTE_USER=git"},
		Stderr: io.Discard,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, ok := r.BasicAuth(); !ok || password != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPush)) // net/http/cgi takes no chunks
		if err != nil {
			http.Error(w, "body too large or cut short", http.StatusBadRequest)
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		backend.ServeHTTP(w, r)
	}), nil
}

// InitRepo makes a bare repository root/name.git with one commit on main, and lets
// it be pushed to.
func InitRepo(root, name string) error {
	bare := filepath.Join(root, name+".git")
	work, err := os.MkdirTemp("", "repo")
	if err != nil {
		return fmt.Errorf("making repository: %w", err)
	}
	defer os.RemoveAll(work)
	for _, args := range [][]string{
		{"init", "-q", "--bare", "-b", "main", bare},
		{"-C", bare, "config", "http.receivepack", "true"},
		{"init", "-q", "-b", "main", work},
		{"-C", work, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "--allow-empty", "-m", "first"},
		{"-C", work, "push", "-q", bare, "main"},
	} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("making repository: git %s: %w: %s", args[0], err, out)
		}
	}
	return nil
}
