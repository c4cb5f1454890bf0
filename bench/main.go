// Command bench measures what the proxy costs, beside bare interception without
// policy, in turn and in one run.
//
// It starts a service on loopback, two bare proxies (net/http on both sides, and
// goproxy's own interception) and the built program with the shipped policy, each
// a process of its own, and prints a table in Markdown. Compare figures of one run
// only, as ratios: see docs/latency.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"chaperone/certs"
	"chaperone/internal/testkit"
)

// options are the flags.
type options struct {
	rounds int
	each   time.Duration
	warm   time.Duration
	rate   int
	idle   int
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 3 && args[0] == "role" {
		return play(args[1], args[2])
	}
	o := options{warm: 200 * time.Millisecond}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 3, "rounds, of which medians are printed")
	f.DurationVar(&o.each, "d", 3*time.Second, "duration of each measurement")
	f.IntVar(&o.rate, "rate", 1000, "requests a second of the open loop")
	f.IntVar(&o.idle, "idle", 200, "idle tunnels")
	smoke := f.Bool("smoke", false, "one short round: does it work at all; no run may be far behind the yardstick")
	bad := f.Bool("trouble", false, "instead: latency with trouble beside it, the program's and the yardstick's")
	count := f.Bool("calls", false, "instead: system calls of a request, the program's and the yardstick's; needs perf and root")
	keepers := f.Bool("stores", false, "instead: the program's added latency with its store in bbolt and in Redis, in turn")
	kinds := f.Bool("kinds", false, "instead: what each kind of credential takes beside bearer, in turn")
	others := f.Bool("peers", false, "also mitmproxy (mitmdump) and squid with ssl-bump, where they are installed")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *smoke {
		o.rounds, o.each, o.warm, o.idle = 1, 200*time.Millisecond, 50*time.Millisecond, 10
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	ctx, b := context.Background(), &builder{dir: dir}
	defer b.stop()
	if err := b.build(ctx); err != nil {
		return err
	}
	if *bad {
		onRedis(ctx, b)
		if err := large(ctx, b); err != nil {
			return err
		}
		return underTrouble(limited(b.roads, o), dir, o)
	}
	if *keepers {
		onRedis(ctx, b)
		return underStores(limited(b.roads, o), o)
	}
	if *kinds {
		return underKinds(ctx, b, o)
	}
	if *count {
		return systemCalls(limited(b.roads, o), o)
	}
	if *others {
		b.peers()
	}
	if err := measure(limited(b.roads, o), o); err != nil || *smoke {
		return err
	}
	return decisions()
}

// limited gives each road the longest that a measurement may take, so that one which
// hangs does not hold up the others.
func limited(roads []road, o options) []road {
	for i := range roads {
		roads[i].limit = o.warm + o.each + patience
	}
	return roads
}

// The names of the roads.
const (
	goproxyRoad = "bare goproxy"
	yardstick   = "bare net/http"
	program     = "chaperone"
)

// road is one way to the service.
type road struct {
	name string
	pid  int // of the proxy; 0 when there is none
	target
	peer    bool                    // somebody else's program: what it fails at is told, and is no error
	mallocs func() (float64, error) // allocations since it started; nil where it does not tell

	pause, resume func() error // what its store needs, where that is another process
}

// builder starts processes.
type builder struct {
	dir     string
	ca      *certs.Authority
	service string // address
	bin     string // the program
	roads   []road
	stops   []func()
}

func (b *builder) stop() {
	for _, s := range slices.Backward(b.stops) {
		s()
	}
}

// build starts the service, the yardsticks and the program. The caller calls stop,
// also of what started before an error.
func (b *builder) build(ctx context.Context) (err error) {
	if b.ca, err = certs.Open(b.dir); err != nil {
		return err
	}
	service, _, end, err := start("service", b.dir)
	if err != nil {
		return err
	}
	b.service, b.stops = service, append(b.stops, end)
	b.roads = append(b.roads, road{name: "direct", target: target{dial: service, roots: pool(b.ca.PEM()), token: secret}})
	for role, name := range map[string]string{"goproxy": goproxyRoad, "http": yardstick} {
		addr, pid, end, err := start(role, b.dir)
		if err != nil {
			return err
		}
		b.stops = append(b.stops, end)
		b.roads = append(b.roads, road{name: name, pid: pid, target: target{dial: addr, tunnel: true, roots: pool(b.ca.PEM()), token: secret}})
	}
	slices.SortFunc(b.roads[1:], func(a, b road) int { return -compare(a.name, b.name) })
	if b.bin, err = testkit.Build(ctx, b.dir); err != nil {
		return err
	}
	return b.program(ctx, program, grants, "")
}

// program starts the program with these grants, and more in its configuration, as a
// road of this name.
func (b *builder) program(ctx context.Context, name, grants, config string) error {
	own := filepath.Join(b.dir, home)
	if name != program {
		own = filepath.Join(b.dir, name)
	}
	if err := os.Mkdir(own, 0o700); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	p, err := testkit.Start(ctx, testkit.ProgramOptions{Bin: b.bin, Dir: own, Resolve: map[string]string{host: b.service}, Roots: b.ca.PEM(), Grants: grants, Config: config})
	if err != nil {
		return err
	}
	b.stops = append(b.stops, p.Kill)
	t, err := enter(ctx, p)
	if err != nil {
		return err
	}
	b.roads = append(b.roads, road{name: name, pid: p.PID(), target: t, mallocs: func() (float64, error) { return mallocs(ctx, p) }})
	return nil
}

// mallocs reads the program's own count of allocations.
func mallocs(ctx context.Context, p *testkit.Program) (float64, error) {
	b, err := p.Admin(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var v float64
		if n, _ := fmt.Sscanf(line, "go_memstats_mallocs_total %g", &v); n == 1 {
			return v, nil
		}
	}
	return 0, errors.New("the program does not tell its allocations")
}

func compare(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

// home is the program's folder.
const home = "chaperone.d"

const grants = `grants:
  agents:
    bench:
      allow:
        - {actions: ["github:issues/*"], resources: [acme/*]}
  humans:
    "*": {allow: [{actions: ["*:*"]}]}
`

// enter registers an agent with a credential and opens a session.
func enter(ctx context.Context, p *testkit.Program) (target, error) {
	var out string
	for _, v := range []struct {
		stdin string
		args  []string
	}{
		{"", []string{"agent", "add", "bench", "--owner", "o@example.com"}},
		{secret, []string{"credential", "add", "gh", "--service", "github", "--owner", "org", "--from-stdin"}},
		{"", []string{"session", "create", "--agent", "bench", "--human", "h@example.com", "--credential", "gh", "--format", "json"}},
	} {
		r, err := p.Run(ctx, v.stdin, nil, v.args...)
		if err != nil || r.Code != 0 {
			return target{}, fmt.Errorf("chaperone %s: %v: %s", v.args[0], err, r.Err)
		}
		out = r.Out
	}
	var s struct {
		ProxyURL string `json:"proxy_url"`
		Handles  map[string]string
		Env      map[string]string
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return target{}, fmt.Errorf("reading the session: %w", err)
	}
	pem, err := os.ReadFile(s.Env["NODE_EXTRA_CA_CERTS"])
	if err != nil {
		return target{}, fmt.Errorf("reading the CA: %w", err)
	}
	return target{dial: p.Addr, tunnel: true, auth: basic(s.ProxyURL), roots: pool(pem), token: s.Handles["gh"]}, nil
}
