package proxy

import (
	"io"
	"maps"
	"net/http"
	"testing"
	"time"

	"chaperone/proxy/http1"
)

// BenchmarkRoad is one small request through a warm tunnel, client and service in
// the same process: what changes between two runs is the proxy's.
func BenchmarkRoad(b *testing.B) {
	d := newRoad(b)
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.seen = d.seen[:0]
		d.mu.Unlock()
		io.WriteString(w, `{"ok":true}`)
	}
	c := d.client(false)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := c.Do(d.request("GET", "https://api.acme.dev/x", nil))
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// stations returns one small request's way from identify to close, without network.
func stations(tb testing.TB) func() {
	d := newRoad(tb)
	caller, err := d.dir.Identify(basicAuth("bot", d.session.Token))
	check(tb, err)
	door := &door{tunnel: &tunnel{caller: caller, host: "api.github.com", port: 443, scheme: "https"}}
	r, err := http.NewRequest("GET", "https://api.github.com/repos/acme/web/issues?per_page=50", nil)
	check(tb, err)
	r.RequestURI, r.Proto = "/repos/acme/web/issues?per_page=50", "HTTP/1.1"
	header := http.Header{
		"User-Agent": {"octokit-core.js/5.0.0 Node.js/24"}, "Accept": {"application/vnd.github+json"}, "Accept-Encoding": {"gzip, deflate"},
		"X-Github-Api-Version": {"2022-11-28"}, "Connection": {"keep-alive"},
	}
	auth := []string{"Bearer " + d.handle}
	r.Header = http.Header{}
	return func() {
		maps.Copy(r.Header, header)
		r.Header["Authorization"] = auth
		x := d.server.arrive(nil, r, http1.Head{}, door)
		for _, station := range []func() error{x.identify, x.clarify, x.classify, x.present, x.decide, x.commit, x.swap} {
			if err := station(); err != nil {
				tb.Fatal(err)
			}
		}
		x.departed, x.returned, x.replied = time.Now(), time.Now(), time.Now()
		x.close()
		x.release()
	}
}

// BenchmarkStations is identify, clarify, classify, present, decide, commit, swap
// and close.
func BenchmarkStations(b *testing.B) {
	request := stations(b)
	b.ReportAllocs()
	for b.Loop() {
		request()
	}
}

// TestStationsAllocateLittle holds the budget of the common path.
func TestStationsAllocateLittle(t *testing.T) {
	const most = 20
	request := stations(t)
	if got := testing.AllocsPerRun(1000, request); got > most {
		t.Errorf("%v allocations for a request, at most %d are meant", got, most)
	}
}

// BenchmarkRoadParallel is BenchmarkRoad with 64 clients.
func BenchmarkRoadParallel(b *testing.B) {
	d := newRoad(b)
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.seen = d.seen[:0]
		d.mu.Unlock()
		io.WriteString(w, `{"ok":true}`)
	}
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		c := d.client(false)
		for pb.Next() {
			resp, err := c.Do(d.request("GET", "https://api.acme.dev/x", nil))
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}
