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
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	o := options{warm: 500 * time.Millisecond}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.IntVar(&o.rounds, "rounds", 3, "rounds, of which medians are printed")
	f.DurationVar(&o.each, "d", 3*time.Second, "duration of each measurement")
	f.IntVar(&o.rate, "rate", 1000, "requests a second of the open loop")
	f.IntVar(&o.idle, "idle", 200, "idle tunnels")
	smoke := f.Bool("smoke", false, "one short round: does it work at all; no run may be far behind the yardstick")
	bad := f.Bool("trouble", false, "instead: the program's latency with trouble beside it")
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
	roads, stop, err := build(context.Background(), dir)
	if err != nil {
		return err
	}
	defer stop()
	if *bad {
		return underTrouble(roads[len(roads)-1], dir, o)
	}
	return measure(roads, o)
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
}

// build starts everything. The caller calls stop, also of what started before an
// error.
func build(ctx context.Context, dir string) (roads []road, stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range slices.Backward(stops) {
			s()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	ca, err := certs.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	service, _, end, err := start("service", dir)
	if err != nil {
		return nil, nil, err
	}
	stops = append(stops, end)
	roads = append(roads, road{name: "direct", target: target{dial: service, roots: pool(ca.PEM()), token: secret}})
	for role, name := range map[string]string{"goproxy": goproxyRoad, "http": yardstick} {
		addr, pid, end, err := start(role, dir)
		if err != nil {
			return nil, nil, err
		}
		stops = append(stops, end)
		roads = append(roads, road{name, pid, target{dial: addr, tunnel: true, roots: pool(ca.PEM()), token: secret}})
	}
	slices.SortFunc(roads[1:], func(a, b road) int { return -compare(a.name, b.name) })
	bin, err := testkit.Build(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	own := filepath.Join(dir, home)
	if err := os.Mkdir(own, 0o700); err != nil {
		return nil, nil, fmt.Errorf("making a folder: %w", err)
	}
	p, err := testkit.Start(ctx, testkit.ProgramOptions{Bin: bin, Dir: own, Resolve: map[string]string{host: service}, Roots: ca.PEM(), Grants: grants})
	if err != nil {
		return nil, nil, err
	}
	stops = append(stops, p.Kill)
	t, err := enter(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	return append(roads, road{program, p.PID(), t}), stop, nil
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
