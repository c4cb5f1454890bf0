package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"chaperone/internal/testkit"
)

// slicesOfRound is into how many turns a round of this comparison is cut, in each of which every
// kind has a few dozen requests: what the machine does beside then falls on all alike.
const slicesOfRound = 100

// lane is one connection on which one way of taking a credential is measured.
type lane struct {
	name   string
	beside int // index of the lane to which it is compared
	w      *wire
	p50    []float64 // µs, by turn
}

// underKinds measures the program with credentials of every kind in turn, one client, and
// prints what each takes beside bearer in the same turn.
func underKinds(ctx context.Context, b *builder, o options) error {
	lanes, err := b.lanes(ctx)
	for _, l := range lanes {
		defer l.w.c.Close()
	}
	if err != nil {
		return err
	}
	turns, each := o.rounds*slicesOfRound, o.each/(3*slicesOfRound)
	if each < 2*time.Millisecond {
		turns, each = o.rounds, 2*time.Millisecond
	}
	for n := range turns {
		for k := range lanes {
			l := lanes[(k+n)%len(lanes)]
			if err := l.measure(each); err != nil {
				return fmt.Errorf("measuring %s: %w", l.name, err)
			}
		}
		if n%slicesOfRound == slicesOfRound-1 {
			tell("turn %d of %d", n+1, turns)
		}
	}
	fmt.Printf("%d turns of %v each, %s, %d CPUs, %s\n\n| kind | p50 µs | beside `bearer` µs | quartiles | × |\n|---|---:|---:|---:|---:|\n", turns, each, runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	for _, l := range lanes {
		l.show(lanes[l.beside])
	}
	return nil
}

// measure takes the lane's figure of one turn.
func (l *lane) measure(each time.Duration) error {
	if _, _, err := loop([]*wire{l.w}, each/10); err != nil {
		return err
	}
	all, _, err := loop([]*wire{l.w}, each)
	l.p50 = append(l.p50, figures{latency: all}.at(.5))
	return err
}

func (l *lane) show(base *lane) {
	var more, ratio []float64
	for i, v := range l.p50 {
		more, ratio = append(more, v-base.p50[i]), append(ratio, v/base.p50[i])
	}
	slices.Sort(more)
	n := len(more)
	if l == base {
		fmt.Printf("| %s | %.0f | | | |\n", l.name, median(l.p50))
		return
	}
	fmt.Printf("| %s | %.0f | %+.1f | %+.1f to %+.1f | %.2f |\n", l.name, median(l.p50), more[n/2], more[n/4], more[3*n/4], median(ratio))
}

// lanes starts a program with a credential of every kind, and opens a connection for each
// whose first request the service accepts. Those that it opened before an error are
// returned with it.
func (b *builder) lanes(ctx context.Context) ([]*lane, error) {
	all, err := ways()
	if err != nil {
		return nil, err
	}
	own := filepath.Join(b.dir, "kinds.d")
	if err := os.Mkdir(own, 0o700); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	resolve := map[string]string{}
	for _, name := range [...]string{kindHost, bodyHost, loginHost, stsHost, fedHost} {
		resolve[name] = b.service
	}
	grants := strings.Replace(grants, `["github:issues/*"], resources: [acme/*]`, `["acme:*", "acme-upload:*"]`, 1)
	p, err := testkit.Start(ctx, testkit.ProgramOptions{Bin: b.bin, Dir: own, Resolve: resolve, Roots: b.ca.PEM(), Grants: grants, Config: acme})
	if err != nil {
		return nil, err
	}
	b.stops = append(b.stops, p.Kill)
	if err := say(ctx, p, "", nil, "agent", "add", "bench", "--owner", "o@example.com"); err != nil {
		return nil, err
	}
	var lanes []*lane
	for i := range all {
		w, err := openWay(ctx, p, &all[i], i)
		if err != nil {
			return lanes, fmt.Errorf("beginning with %s: %w", all[i].name, err)
		}
		lanes = append(lanes, &lane{name: all[i].name, w: w, beside: base(all, i)})
	}
	return lanes, nil
}

// base is the way to which another is compared: bearer, with the same kind of body.
func base(all []way, i int) int {
	return slices.IndexFunc(all, func(w way) bool { return w.kind == "bearer" && w.body == all[i].body })
}

// openWay puts a credential away, opens a session with it, and has one request answered.
func openWay(ctx context.Context, p *testkit.Program, w *way, n int) (*wire, error) {
	id := "c" + strconv.Itoa(n)
	args := []string{"credential", "add", id, "--service", w.service(), "--owner", "org", "--kind", w.kind, "--from-stdin"}
	if w.place != "" {
		args = append(args, "--place", w.place)
	}
	for _, s := range w.settings {
		args = append(args, "--set", s)
	}
	if err := say(ctx, p, w.material, nil, args...); err != nil {
		return nil, err
	}
	var s struct {
		ProxyURL string `json:"proxy_url"`
		Handles  map[string]string
		Env      map[string]string
	}
	if err := say(ctx, p, "", &s, "session", "create", "--agent", "bench", "--human", "h@example.com", "--credential", id, "--format", "json"); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(s.Env["NODE_EXTRA_CA_CERTS"])
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	text, err := w.request(n, given{s.Handles[id], s.Env})
	if err != nil {
		return nil, err
	}
	t := target{dial: p.Addr, tunnel: true, auth: basic(s.ProxyURL), roots: pool(pem), limit: 10 * time.Minute}
	c, err := t.connect(w.host())
	if err != nil {
		return nil, err
	}
	tc := tls.Client(c, &tls.Config{RootCAs: t.roots, ServerName: w.host(), NextProtos: []string{"http/1.1"}})
	x := &wire{tc, bufio.NewReaderSize(tc, 8<<10), text}
	if _, err := x.do(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return x, nil
}

// say runs a verb of the program that has to succeed, and reads what it prints where out
// is not nil.
func say(ctx context.Context, p *testkit.Program, stdin string, out any, args ...string) error {
	r, err := p.Run(ctx, stdin, nil, args...)
	if err != nil || r.Code != 0 {
		return fmt.Errorf("chaperone %s: %v: %s", args[0], err, r.Err)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal([]byte(r.Out), out)
}

// takers answers for the hosts that credentials of every kind are for.
type takers struct{ ways []way }

// takes answers what is not for the service proper, and reports whether it did.
func (t *takers) takes(w http.ResponseWriter, r *http.Request) bool {
	switch r.Host {
	case kindHost, bodyHost:
		n, err := strconv.Atoi(r.Header.Get(wayField))
		body, berr := io.ReadAll(r.Body)
		if errors.Join(err, berr) == nil && n >= 0 && n < len(t.ways) && t.ways[n].arrived(r, string(body)) {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
	case stsHost:
		fmt.Fprint(w, "<R>")
		for _, name := range [...]string{"AssumeRole", "AssumeRoleWithWebIdentity"} {
			fmt.Fprintf(w, "<%[1]sResult><Credentials><AccessKeyId>%[2]s</AccessKeyId><SecretAccessKey>%[3]s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></%[1]sResult>", name, keyID, secret)
		}
		fmt.Fprint(w, "</R>")
	default:
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(r.URL.Path, "/installations/") {
			w.WriteHeader(http.StatusCreated)
		}
		fmt.Fprintf(w, `{"token":%[1]q,"expires_at":"2099-01-01T00:00:00Z","access_token":%[1]q,"issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":36000}`, secret)
	}
	return true
}
