package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"chaperone/cmd/chaperone/admin"
)

// depot is a server of bundles that hears reports of status as well.
type depot struct {
	mu      sync.Mutex
	file    string
	short   bool // it announces more than it sends
	reports []string
}

func (d *depot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.URL.Path == "/status" {
		b, _ := io.ReadAll(r.Body) // what is missing is not found in it
		d.reports = append(d.reports, string(b))
		return
	}
	b, err := os.ReadFile(d.file)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	etag := fmt.Sprintf("%q", d.file)
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Etag", etag)
	if d.short {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		b = b[:len(b)/2]
	}
	w.Write(b)
}

// depots are those of the scripts that run, by the folder of each.
var depots sync.Map

// opensDepot starts a server of bundles and sets DEPOT to its URL.
func opensDepot(ts *testscript.TestScript, _ bool, _ []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	d := &depot{}
	s := &http.Server{Handler: d}
	depots.Store(ts.MkAbs("."), d)
	ts.Defer(func() { s.Close(); depots.Delete(ts.MkAbs(".")) })
	go s.Serve(ln)
	ts.Setenv("DEPOT", "http://"+ln.Addr().String())
}

func depotOf(ts *testscript.TestScript) *depot {
	d, ok := depots.Load(ts.MkAbs("."))
	if !ok {
		ts.Fatalf("no depot is open")
	}
	return d.(*depot)
}

// offers [-short] FILE has the server offer a bundle; a file that is not there is none.
func offers(ts *testscript.TestScript, _ bool, args []string) {
	d := depotOf(ts)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.short = args[0] == "-short"
	d.file, d.reports = ts.MkAbs(args[len(args)-1]), nil
}

// reported PATTERN waits until a report of status matches that came since the last offer.
func reported(ts *testscript.TestScript, _ bool, args []string) {
	d, want := depotOf(ts), regexp.MustCompile(args[0])
	within(ts, "a report like "+args[0], func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return want.MatchString(strings.Join(d.reports, "\n"))
	})
}

// told SOCKET PATTERN waits until the proxy's status matches.
func told(ts *testscript.TestScript, _ bool, args []string) {
	client, want := admin.NewClient(ts.MkAbs(args[0])), regexp.MustCompile(args[1])
	var last []byte
	within(ts, "a status like "+args[1], func() bool {
		s, err := client.Status(context.Background())
		if err != nil {
			return false
		}
		last, err = json.Marshal(s)
		return err == nil && want.Match(last)
	})
	ts.Logf("%s", last)
}
