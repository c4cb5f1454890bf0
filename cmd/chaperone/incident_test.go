package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

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

// taker CONFIG FILE NAME KIND [EVENT]: a server that takes what a sink posts and appends
// it to FILE; CONFIG gets the sink.
func taker(ts *testscript.TestScript, _ bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	var mu sync.Mutex
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		f, err := os.OpenFile(ts.MkAbs(args[1]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		defer f.Close()
		io.Copy(f, r.Body) // what is missing fails the script
		fmt.Fprintf(f, "\nauthorization %s\n", r.Header.Get("Authorization"))
	})}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	ts.Defer(func() {
		s.Close()
		<-served
	})
	b := ts.ReadFile(args[0])
	if !strings.Contains(b, "sinks:") {
		b += "sinks:\n"
	}
	b += fmt.Sprintf("  - {name: %s, kind: %s, url: \"http://%s\", headers: {Authorization: {file: token}}", args[2], args[3], ln.Addr())
	if len(args) > 4 {
		b += ", events: [" + args[4] + "]"
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(b+"}\n"), 0o600))
}

// arrives FILE TEXT waits until a file holds a text.
func arrives(ts *testscript.TestScript, _ bool, args []string) {
	within(ts, args[1]+" in "+args[0], func() bool {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && strings.Contains(string(b), args[1])
	})
}
