package testkit

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// GitHub is a stand-in of GitHub's REST API for issues and repositories, also
// under /api/v3 as on an own server. It refuses whatever does not carry secret as
// its bearer (RFC 6750, or GitHub's older scheme "token"), with GitHub's words.
func GitHub(secret string) http.Handler {
	var (
		mu     sync.Mutex
		issues []map[string]any
	)
	m := http.NewServeMux()
	m.HandleFunc("GET /user", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Oauth-Scopes", "repo, read:org, gist")
		answer(w, 200, map[string]any{"login": "octo", "id": 1})
	})
	m.HandleFunc("GET /repos/{owner}/{repo}", func(w http.ResponseWriter, r *http.Request) {
		full := r.PathValue("owner") + "/" + r.PathValue("repo")
		answer(w, 200, map[string]any{"id": 7, "name": r.PathValue("repo"), "full_name": full, "private": true})
	})
	m.HandleFunc("DELETE /repos/{owner}/{repo}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	m.HandleFunc("GET /repos/{owner}/{repo}/issues", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		answer(w, 200, slices.Concat([]map[string]any{{"number": 1, "title": "first"}}, issues))
	})
	m.HandleFunc("POST /repos/{owner}/{repo}/issues", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Title string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Title == "" {
			answer(w, 422, map[string]any{"message": "Validation Failed"})
			return
		}
		mu.Lock()
		defer mu.Unlock()
		issue := map[string]any{"number": len(issues) + 2, "title": in.Title}
		issues = append(issues, issue)
		answer(w, 201, issue)
	})
	m.HandleFunc("POST /graphql", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		answer(w, 200, map[string]any{"data": map[string]any{"viewer": map[string]any{"login": "octo"}}})
	})
	m.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { answer(w, 404, map[string]any{"message": "Not Found"}) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer "+secret && got != "token "+secret {
			answer(w, 401, map[string]any{"message": "Bad credentials"})
			return
		}
		http.StripPrefix(prefix(r, "/api/v3"), m).ServeHTTP(w, r)
	})
}

func prefix(r *http.Request, p string) string {
	if strings.HasPrefix(r.URL.Path, p+"/") {
		return p
	}
	return ""
}

// Slack is a stand-in of Slack's Web API: 200 with {"ok":false} for a bearer that
// is not secret, as Slack answers.
func Slack(secret string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			answer(w, 200, map[string]any{"ok": false, "error": "invalid_auth"})
			return
		}
		io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/api/auth.test":
			answer(w, 200, map[string]any{"ok": true, "user": "bot", "team": "acme", "user_id": "U1", "team_id": "T1"})
		case "/api/chat.postMessage":
			answer(w, 200, map[string]any{"ok": true, "channel": "C1", "ts": "1700000000.000100"})
		default:
			answer(w, 200, map[string]any{"ok": false, "error": "unknown_method"})
		}
	})
}

// OpenAI is a stand-in of OpenAI's API: models, and chat completions at once or
// as a stream of events, which the model "endless" never ends.
func OpenAI(secret string) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"object": "list", "data": []any{map[string]any{"id": "small", "object": "model"}}})
	})
	m.HandleFunc("DELETE /v1/models/{model}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, map[string]any{"id": r.PathValue("model"), "object": "model", "deleted": true})
	})
	m.HandleFunc("POST /v1/chat/completions", complete)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			answer(w, 401, map[string]any{"error": map[string]any{"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key"}})
			return
		}
		m.ServeHTTP(w, r)
	})
}

func complete(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Model  string
		Stream bool
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		answer(w, 400, map[string]any{"error": map[string]any{"message": "not JSON", "type": "invalid_request_error"}})
		return
	}
	if !in.Stream {
		message := map[string]any{"role": "assistant", "content": "hello from the model"}
		answer(w, 200, map[string]any{"id": "c1", "object": "chat.completion", "model": in.Model,
			"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": message}}})
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	say := func(word string) error {
		fmt.Fprintf(w, "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%s}}]}\n\n", strconv.Quote(word))
		return rc.Flush()
	}
	if in.Model == "endless" {
		Tick(r.Context(), func(n int) error { return say(fmt.Sprint("tick ", n, "\n")) }) // until the client is gone
		return
	}
	for _, word := range [...]string{"hello ", "from ", "the ", "model"} {
		say(word)
	}
	io.WriteString(w, "data: [DONE]\n\n")
}

// Stripe is a stand-in of Stripe's API for balance and customers.
func Stripe(secret string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, basic := r.BasicAuth()
		if r.Header.Get("Authorization") != "Bearer "+secret && (!basic || user != secret) {
			answer(w, 401, map[string]any{"error": map[string]any{"message": "Invalid API Key provided", "type": "invalid_request_error"}})
			return
		}
		io.Copy(io.Discard, r.Body)
		switch {
		case r.URL.Path == "/v1/balance":
			answer(w, 200, map[string]any{"object": "balance", "available": []any{map[string]any{"amount": 424242, "currency": "usd"}}})
		case strings.HasPrefix(r.URL.Path, "/v1/customers"):
			answer(w, 200, map[string]any{"id": "cus_1", "object": "customer", "deleted": r.Method == http.MethodDelete})
		default:
			answer(w, 404, map[string]any{"error": map[string]any{"message": "Unrecognized request URL", "type": "invalid_request_error"}})
		}
	})
}

func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b) // the client's own affair
}
