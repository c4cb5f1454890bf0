package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"chaperone/credential/grant"
)

// TestCallback has strangers come to the port on which a login waits for the browser:
// none of them ends it.
func TestCallback(t *testing.T) {
	answers, state := make(chan grant.Answer, 1), new(atomic.Pointer[string])
	h := callback(answers, state)
	ask := func(method, target string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		return w.Code
	}
	const right = "/callback?state=ours&code=c&iss=i"
	if got := ask("GET", right); got != http.StatusBadRequest {
		t.Errorf("before the login began: %d", got)
	}
	state.Store(new("ours"))
	for _, tc := range []struct {
		method, target string
		want           int
	}{
		{"GET", "/callback?state=theirs&code=c", 400}, {"GET", "/callback?state=our&code=c", 400}, {"GET", "/callback?state=theirs&error=access_denied", 400},
		{"GET", "/callback?code=c", 404}, {"POST", right, 404}, {"GET", "/favicon.ico", 404}, {"GET", right, 200}, {"GET", right, 409},
	} {
		if got := ask(tc.method, tc.target); got != tc.want {
			t.Errorf("%s %s: %d, want %d", tc.method, tc.target, got, tc.want)
		}
	}
	if got := <-answers; got.Code != "c" || got.State != "ours" || got.Iss != "i" {
		t.Errorf("%+v", got)
	}
}
