package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"chaperone/cmd/chaperone/admin"
	"chaperone/proxy/identity"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"chaperone": main})
}

// TestScripts plays whole journeys with the real program.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("USER", "tester")
			e.Setenv("TMPDIR", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"ready": ready, "gone": gone, "closed": closed, "standin": standin, "call": call, "taker": taker, "arrives": arrives, "open": openPort, "shipped": copyShipped, "opendepot": opensDepot, "offers": offers, "reported": reported, "told": told},
		Condition: func(name string) (bool, error) {
			if name != "namespaces" {
				return false, fmt.Errorf("no such condition: %s", name)
			}
			return exec.Command("unshare", "--user", "--net", "--pid", "--mount-proc", "--fork", "true").Run() == nil, nil
		},
	})
}

// within calls f until it is true, and fails after twenty seconds.
func within(ts *testscript.TestScript, what string, f func() bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			ts.Fatalf("%s did not come about", what)
		case <-tick.C:
		}
	}
}

// ready SOCKET waits until the proxy behind it serves.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	client := admin.NewClient(ts.MkAbs(args[0]))
	within(ts, "readiness", func() bool {
		s, err := client.Status(context.Background())
		return err == nil && s.Ready
	})
}

func readPID(ts *testscript.TestScript, file string) int {
	var pid int
	within(ts, file, func() bool {
		b, err := os.ReadFile(ts.MkAbs(file))
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	})
	return pid
}

// gone PIDFILE waits until the process of that id has ended.
func gone(ts *testscript.TestScript, _ bool, args []string) {
	pid := readPID(ts, args[0])
	within(ts, "the end of the process", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// openPort NAME listens on 127.0.0.1 until the script ends, and sets NAME to where.
func openPort(ts *testscript.TestScript, _ bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ln.Close() })
	ts.Setenv(args[0], ln.Addr().String())
}

// closed SOCKET waits until no session is open.
func closed(ts *testscript.TestScript, _ bool, args []string) {
	client := admin.NewClient(ts.MkAbs(args[0]))
	within(ts, "the end of all sessions", func() bool {
		list, err := client.Sessions(context.Background())
		ts.Check(err)
		return !slices.ContainsFunc(list, func(s identity.Session) bool { return state(&s) == "open" })
	})
}

func TestDemo(t *testing.T) {
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs}
	if code := run([]string{"demo"}, a); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), errs.String())
	}
	for i := 1; i <= 6; i++ {
		if !strings.Contains(out.String(), fmt.Sprintf("\n%d. ", i)) {
			t.Errorf("step %d is not shown", i)
		}
	}
}

// TestDemoFails sees the demo notice a service that does not get the secret.
func TestDemoFails(t *testing.T) {
	var out bytes.Buffer
	service, err := openStandIns(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer service.close()
	d := &demonstration{a: &app{stdout: &out, stderr: &out}, service: service}
	if err := d.start(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	defer d.r.close()
	defer d.up.stop()
	if err := d.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.alice.Handles["gh"] = "ghp_not_a_handle"
	d.play(t.Context())
	if len(d.failed) == 0 {
		t.Error("no step failed without a handle")
	}
}

func TestBusyPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(config, []byte("listen: "+ln.Addr().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run([]string{"serve", "--config", config}, &app{stdout: &out, stderr: &errs})
	if code != 1 || !strings.Contains(errs.String(), "address already in use") || !strings.Contains(errs.String(), "another program listens there") {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
	if out.Len() > 0 {
		t.Errorf("it greeted: %s", out.String())
	}
}

func TestAdminSocketIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	ln, err := admin.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode().Perm())
	}
	go http.Serve(ln, http.NotFoundHandler())
	if _, err := admin.Listen(path); err == nil {
		t.Error("a second server took the socket over")
	}
}

// TestReference holds docs/cli.md against the verbs' own help.
func TestReference(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Command line\n\nPrinted from the program's own help; `go test ./cmd/chaperone -update` writes it anew.\n")
	b.WriteString("`--config FILE` and `--json` hold for every verb. Exit codes: 0 done, 1 failed, 2 misused, 3 policy said no.\n")
	describeVerb(&b, (&app{}).root())
	path := filepath.Join("..", "..", "docs", "cli.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != b.String() {
		t.Errorf("docs/cli.md is not what the program says (%v); write it anew with -update", err)
	}
}

func describeVerb(b *strings.Builder, c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Name() == "help" || sub.Name() == "completion" {
			continue
		}
		if !sub.HasSubCommands() {
			describeOne(b, sub)
		}
		describeVerb(b, sub)
	}
}

func describeOne(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n%s.\n", c.CommandPath(), c.Short)
	if c.Long != "" {
		fmt.Fprintf(b, "\n%s\n", c.Long)
	}
	fmt.Fprintf(b, "\n```\n%s\n", c.UseLine())
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "config" || f.Name == "json" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(b, "  %-26s %s\n", strings.TrimSpace("--"+f.Name+" "+name), usage)
	})
	b.WriteString("```\n")
}
