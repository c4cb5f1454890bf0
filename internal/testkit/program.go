package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"chaperone/rego"
)

// startup and ending bound how long the program may take to begin and to end.
const (
	startup = 60 * time.Second
	ending  = 90 * time.Second // a machine may be busy with other tests
)

// Build builds the program into dir and returns its path. It uses the go command
// of the PATH, in the module of the working directory.
func Build(ctx context.Context, dir string) (string, error) {
	bin := filepath.Join(dir, "chaperone")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "chaperone/cmd/chaperone").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return bin, nil
}

// ProgramOptions describe a running proxy.
type ProgramOptions struct {
	Bin     string            // from [Build]
	Dir     string            // where config, state, policy and log go
	Resolve map[string]string // service host -> address on loopback
	Roots   []byte            // PEM of the CA that the stand-ins are under
	Grants  string            // the policy's grants.yaml; empty: what ships
	Config  string            // more of config.yaml, as text
	Log     string            // more of its log:, as text
	Env     []string          // added to its environment, and to that of its verbs
}

// Program is a `chaperone serve` process, driven from outside as people drive it.
type Program struct {
	Addr   string // where agents connect to
	Config string // path of config.yaml
	Log    string // path of the decision log

	o      ProgramOptions
	cmd    *exec.Cmd
	out    output
	exited chan struct{}
	err    error // of the process; read after exited
}

// output collects what a process prints, for readers at any time.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Start writes the configuration and starts the program, and returns once it is
// ready. The process ends with the parent, at the latest.
func Start(ctx context.Context, o ProgramOptions) (*Program, error) {
	p := &Program{o: o, Config: filepath.Join(o.Dir, "config.yaml"), Log: filepath.Join(o.Dir, "state", "decisions.jsonl")}
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	p.Addr = addr
	if err := p.configure(); err != nil {
		return nil, err
	}
	return p, p.serve(ctx)
}

// Restart starts the program again in the same folder, after it ended.
func (p *Program) Restart(ctx context.Context) error { return p.serve(ctx) }

func (p *Program) configure() error {
	policy := filepath.Join(p.o.Dir, "rego")
	if err := os.CopyFS(policy, rego.FS); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("writing policy: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listen: %s\nadmin: unix:admin.sock\nstate: state\npolicy: {path: rego}\nlog: {path: state/decisions.jsonl%s}\n", p.Addr, p.o.Log)
	fmt.Fprintf(&b, "upstream:\n  allow_private: [127.0.0.0/8]\n  roots: [roots.pem]\n  resolve:\n")
	for host, to := range p.o.Resolve {
		fmt.Fprintf(&b, "    %s: %s\n", host, to)
	}
	b.WriteString(p.o.Config)
	files := map[string][]byte{p.Config: []byte(b.String()), filepath.Join(p.o.Dir, "roots.pem"): p.o.Roots}
	if p.o.Grants != "" {
		files[filepath.Join(policy, "chaperone", "grants.yaml")] = []byte(p.o.Grants)
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return fmt.Errorf("writing configuration: %w", err)
		}
	}
	return nil
}

func (p *Program) serve(ctx context.Context) error {
	p.cmd = exec.Command(p.o.Bin, "--config", p.Config, "serve")
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.o.Dir, &p.out, &p.out
	p.cmd.Env = append(p.cmd.Environ(), p.o.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting the program: %w", err)
	}
	exited := make(chan struct{})
	p.exited = exited
	go func() {
		p.err = p.cmd.Wait()
		close(exited)
	}()
	ctx, cancel := context.WithTimeout(ctx, startup)
	defer cancel()
	if err := p.ready(ctx); err != nil {
		p.Kill()
		return fmt.Errorf("waiting for the program: %w\n%s", err, p.out.String())
	}
	return nil
}

// ready asks the admin socket until it says yes, the process ends or ctx does.
func (p *Program) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := p.Admin(ctx, "/readyz"); err == nil && b != nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("it ended: %w", p.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Admin gets a path from the admin socket; other answers than 200 are errors.
func (p *Program) Admin(ctx context.Context, path string) ([]byte, error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(p.o.Dir, "admin.sock"))
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("admin socket: %s: %s", resp.Status, &b)
	}
	return append([]byte{}, b.Bytes()...), nil
}

// PID is the process's id.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Output is all that the process printed, on both of its streams.
func (p *Program) Output() string { return p.out.String() }

// Result is how a verb ended.
type Result struct {
	Out, Err string
	Code     int
}

// scrubbed is env without what names a proxy or roots: a machine may set them for its
// own needs, and a client that only works because of them works nowhere else.
func scrubbed(env []string) []string {
	return slices.DeleteFunc(env, func(e string) bool {
		name, _, _ := strings.Cut(strings.ToUpper(e), "=")
		for _, mark := range [...]string{"PROXY", "SSL_", "_CERT", "CA_BUNDLE", "CA_CERT", "CAINFO", "CAFILE", "ROOTS_FILE", "JAVA_TOOL_OPTIONS"} {
			if strings.Contains(name, mark) {
				return true
			}
		}
		return false
	})
}

// Command is a verb of the program's command line that the caller starts, with env
// as [Program.Run] has it. It is killed when ctx is done.
func (p *Program) Command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.o.Bin, append([]string{"--config", p.Config}, args...)...)
	cmd.Dir = p.o.Dir
	cmd.Env = slices.Concat(scrubbed(cmd.Environ()), p.o.Env, env)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// Run runs a verb of the program's command line, with env added to this process's
// environment less its proxies and roots, and stdin as its input.
func (p *Program) Run(ctx context.Context, stdin string, env []string, args ...string) (Result, error) {
	cmd := p.Command(ctx, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return Result{}, fmt.Errorf("running %s: %w", strings.Join(args, " "), err)
	}
	return Result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}, nil
}

// Record is one line of the decision log.
type Record struct {
	Time     time.Time
	ID       string `json:"id"`
	Event    string `json:"event"`
	Agent    struct{ ID, Instance, Owner string }
	Human    struct{ Sub, Iss, Email string }
	Session  string
	Purpose  string
	Action   struct{ ID, Service, Operation, Access string }
	Resource map[string]any
	Actions  []struct{ Action struct{ ID, Access string } }
	Request  struct {
		Method, Host, Path, Protocol string
	}
	Decision struct {
		Result, Policy string
		Reasons        []string
	}
	Credential struct{ ID, Handle string }
	Alarm      string
	Outcome    struct {
		Status        int
		Error         string
		Indeterminate bool
		UpstreamUS    int64 `json:"upstream_us"` // 0: the service did not answer
	}
}

// Records reads the decision log as it is now, all segments in order. A last line
// that is not whole is left out.
func (p *Program) Records() ([]Record, error) {
	old, err := filepath.Glob(strings.TrimSuffix(p.Log, ".jsonl") + "-*.jsonl")
	if err != nil {
		return nil, fmt.Errorf("reading the decision log: %w", err)
	}
	slices.Sort(old)
	var all []Record
	for _, name := range append(old, p.Log) {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading the decision log: %w", err)
		}
		for line := range bytes.Lines(b) {
			if line[len(line)-1] != '\n' {
				break
			}
			var r Record
			if err := json.Unmarshal(line, &r); err != nil {
				return nil, fmt.Errorf("reading the decision log: %s: %w", name, err)
			}
			all = append(all, r)
		}
	}
	return all, nil
}

// Pause stops the process where it is, and Resume lets it go on.
func (p *Program) Pause() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Program) Resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// Kill ends the process with SIGKILL and waits for it.
func (p *Program) Kill() {
	p.cmd.Process.Kill() // it may have ended by itself
	<-p.exited
}

// Stop asks the process to end and returns an error unless it did so cleanly.
func (p *Program) Stop() error {
	select {
	case <-p.exited:
		return fmt.Errorf("the program had ended already: %w", p.err)
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping the program: %w", err)
	}
	late := time.NewTimer(ending)
	defer late.Stop()
	select {
	case <-p.exited:
	case <-late.C:
		p.cmd.Process.Signal(syscall.SIGQUIT) // for its stacks
		<-p.exited
		return fmt.Errorf("the program did not end within %v\n%s", ending, p.out.String())
	}
	if p.err != nil {
		return fmt.Errorf("stopping the program: %w\n%s", p.err, p.out.String())
	}
	return nil
}
