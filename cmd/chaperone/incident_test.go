package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// standin CONFIG starts a stand-in of the services and writes a configuration that
// leads to it, behind what CONFIG holds.
func standin(ts *testscript.TestScript, _ bool, args []string) {
	s, err := openStandIns(ts.MkAbs("services"))
	ts.Check(err)
	ts.Defer(s.close)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = fmt.Fprintf(f, "upstream:\n  allow_private: [127.0.0.1]\n  resolve: {%s: %s, %s: %s}\n  roots: [%s]\n", githubHost, s.address, slackHost, s.address, s.roots)
	ts.Check(err)
	ts.Check(f.Close())
}

// call SESSION STATUS METHOD URL [HANDLE]: the agent of a session, as session create
// printed it, makes a request with the handle of a credential, or with a text that is
// none. The decision's id goes into the variable ID, a bad status ends the test.
func call(ts *testscript.TestScript, _ bool, args []string) {
	var s printedSession
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &s))
	proxy, err := url.Parse(s.ProxyURL)
	ts.Check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ts.ReadFile(s.Env["SSL_CERT_FILE"])))
	t := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer t.CloseIdleConnections()
	r, err := http.NewRequest(args[2], args[3], nil)
	ts.Check(err)
	if len(args) > 4 {
		handle, ok := s.Handles[args[4]]
		if !ok {
			handle = args[4]
		}
		r.Header.Set("Authorization", "Bearer "+handle)
	}
	resp, err := t.RoundTrip(r)
	if err != nil { // a tunnel that is refused is an error of the client's
		if !strings.Contains(err.Error(), "407") && !strings.Contains(err.Error(), "Proxy Authentication Required") || args[1] != "407" {
			ts.Fatalf("%s %s: %v", args[2], args[3], err)
		}
		return
	}
	defer resp.Body.Close()
	_, id, _ := strings.Cut(resp.Header.Get("Chaperone-Decision"), "id=")
	ts.Setenv("ID", id)
	if fmt.Sprint(resp.StatusCode) != args[1] {
		ts.Fatalf("%s %s: %s, want %s", args[2], args[3], resp.Status, args[1])
	}
}
