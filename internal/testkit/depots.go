package testkit

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Kube is a stand-in of the Kubernetes API with pods in one namespace: a list, a
// log that follows without end, and whatever is posted given back.
func Kube(secret string) http.Handler {
	m := http.NewServeMux()
	const pods = "/api/v1/namespaces/acme/pods"
	m.HandleFunc("GET "+pods, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"kind": "PodList", "apiVersion": "v1", "items": []any{map[string]any{"kind": "Pod", "apiVersion": "v1", "metadata": map[string]any{"name": "web-1"}}}})
	})
	m.HandleFunc("GET "+pods+"/web-1/log", func(w http.ResponseWriter, r *http.Request) {
		Tick(r.Context(), func(n int) error { // until the client is gone
			if _, err := fmt.Fprintf(w, "tick %d\n", n); err != nil {
				return err
			}
			return http.NewResponseController(w).Flush()
		})
	})
	m.HandleFunc("POST "+pods, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		io.Copy(w, r.Body) // the client's own affair
	})
	m.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			answer(w, 401, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized", "message": "Unauthorized", "code": 401})
			return
		}
		m.ServeHTTP(w, r)
	})
}

// Depot serves the files below dir and takes new ones by PUT and POST, to whoever
// gives secret as bearer, as the password of Basic or, as cargo has it, alone. That
// is as much of a registry as package managers ask for.
func Depot(dir, secret string) http.Handler {
	files := http.FileServer(http.Dir(dir))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if got := r.Header.Get("Authorization"); password != secret && got != "Bearer "+secret && got != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="depot"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			files.ServeHTTP(w, r)
			return
		}
		name := filepath.Join(dir, "received", strings.ReplaceAll(strings.Trim(r.URL.Path, "/"), "/", "_")+time.Now().Format("-150405.000000"))
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPush))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(name), 0o755)
		}
		if err == nil {
			err = os.WriteFile(name, body, 0o600)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, http.StatusCreated, map[string]any{"ok": true, "success": true})
	})
}
