// Package settings reads config.yaml.
package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"chaperone/policy/action"
)

// Settings is config.yaml with its defaults filled in and its paths made absolute.
// The comments of the file at the project's root are the reference.
type Settings struct {
	Listen       string           `yaml:"listen"`
	Advertise    string           `yaml:"advertise"` // URL where agents reach it; empty: listen
	TLS          Pair             `yaml:"tls"`
	Admin        string           `yaml:"admin"` // path of the socket, once loaded
	Metrics      string           `yaml:"metrics"`
	State        string           `yaml:"state"`
	Store        string           `yaml:"store"`
	StoreStale   time.Duration    `yaml:"store_stale"`
	Redis        Redis            `yaml:"redis"`
	Key          Reference        `yaml:"key"`
	Sources      Sources          `yaml:"sources"`
	Logins       map[string]Login `yaml:"logins"` // by service
	CA           Pair             `yaml:"ca"`
	Policy       Policy           `yaml:"policy"`
	Log          Log              `yaml:"log"`
	Sinks        []Sink           `yaml:"sinks"`
	Upstream     Upstream         `yaml:"upstream"`
	Catalogues   []string         `yaml:"catalogues"`
	Services     []action.Service `yaml:"services"`
	UnknownHosts string           `yaml:"unknown_hosts"`
	Drain        time.Duration    `yaml:"drain"`
	DrainNotice  time.Duration    `yaml:"drain_notice"`

	// File is where the settings come from; empty for the defaults.
	File string `yaml:"-"`
}

// Pair names a certificate and its key, both or neither.
type Pair struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Reference says where a secret is, and never what it is. At most one is set.
type Reference struct {
	File    string   `yaml:"file"`
	Env     string   `yaml:"env"`
	Command []string `yaml:"command"`
	Keyring string   `yaml:"keyring"` // account of service chaperone in this user's keyring
}

// Redis is about a store that several replicas share.
type Redis struct {
	Password         Reference `yaml:"password"`
	SentinelUser     string    `yaml:"sentinel_user"`
	SentinelPassword Reference `yaml:"sentinel_password"`
	Prefix           string    `yaml:"prefix"`
	Roots            []string  `yaml:"roots"`
	Cert             string    `yaml:"cert"`
	Key              string    `yaml:"key"`
}

// Policy says which policy decides. An empty path is the policy in the program.
type Policy struct {
	Path string `yaml:"path"`
	// Shadow is a second policy that is asked beside the one that decides.
	Shadow string `yaml:"shadow"`
	// Signing demands that a bundle is signed.
	Signing Signing `yaml:"signing"`
	// Token is for the server of bundles.
	Token Reference `yaml:"token"`
	// Poll is the time between two questions to the server of bundles.
	Poll time.Duration `yaml:"poll"`
	// Status is the URL of OPA's status service, which is told how each question to the
	// server of bundles ended.
	Status string `yaml:"status"`
}

// Signing says who must have signed a bundle.
type Signing struct {
	Key       Reference `yaml:"key"`
	Algorithm string    `yaml:"algorithm"`
	Scope     string    `yaml:"scope"`
}

// Remote reports whether the path of a policy is the URL of a bundle.
func Remote(path string) bool { return strings.Contains(path, "://") }

// Log is about the decision log.
type Log struct {
	Path    string        `yaml:"path"`
	Sync    time.Duration `yaml:"sync"`
	MaxSize int64         `yaml:"max_size"`
	MaxAge  time.Duration `yaml:"max_age"`
	Keep    int           `yaml:"keep"`
	Pack    bool          `yaml:"pack"`
	Peers   string        `yaml:"peers"` // HOST:PORT at which other replicas read it; empty: they do not

	Checkpoints Checkpoints `yaml:"checkpoints"`
}

// Checkpoints say when the log is signed, and where to that goes besides.
type Checkpoints struct {
	Every time.Duration `yaml:"every"`
	Lines int64         `yaml:"lines"`
	To    []string      `yaml:"to"`
	Key   string        `yaml:"key"` // file
}

// Sink is where the decision log goes besides.
type Sink struct {
	Name    string               `yaml:"name"`
	Kind    string               `yaml:"kind"`
	URL     string               `yaml:"url"`
	Headers map[string]Reference `yaml:"headers"`
	Roots   []string             `yaml:"roots"`
	Client  Pair                 `yaml:"client"`
	Events  []string             `yaml:"events"`
	From    string               `yaml:"from"`
}

// Upstream is about the way to services.
type Upstream struct {
	AllowPrivate  []string          `yaml:"allow_private"`
	Resolve       map[string]string `yaml:"resolve"`
	Roots         []string          `yaml:"roots"`
	Proxy         string            `yaml:"proxy"`
	HeaderTimeout time.Duration     `yaml:"header_timeout"`
}

// Values of unknown_hosts.
const (
	DenyUnknown   = "deny"
	TunnelUnknown = "tunnel"
)

// Default returns the settings of an empty file.
func Default() *Settings {
	return &Settings{
		Listen: "127.0.0.1:8080", State: "state", Store: "bolt", StoreStale: 30 * time.Second, Redis: Redis{Prefix: "chaperone"},
		Log: Log{Sync: time.Second, MaxSize: 256 << 20, MaxAge: 7 * 24 * time.Hour, Pack: true, Checkpoints: Checkpoints{Every: time.Minute, Lines: 10000}}, UnknownHosts: DenyUnknown, Drain: 30 * time.Second,
		Sources: Sources{Timeout: 10 * time.Second, TokenTimeout: 20 * time.Second},
	}
}

// Faults are all that is wrong with a file, in the order of its lines.
type Faults struct {
	File string
	List []Fault
}

// Fault is one thing that is wrong. Line is 0 where the file has no line for it.
type Fault struct {
	Line int
	What string
}

// Error lists the faults, one a line.
func (f *Faults) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s has %d fault", f.File, len(f.List))
	if len(f.List) > 1 {
		b.WriteByte('s')
	}
	for _, x := range f.List {
		b.WriteString("\n  ")
		if x.Line > 0 {
			fmt.Fprintf(&b, "line %d: ", x.Line)
		}
		b.WriteString(x.What)
	}
	return b.String()
}

// Load reads and checks a file. It changes nothing and opens nothing else. The
// error is a [*Faults] when the file could be read.
func Load(path string) (*Settings, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	b, err := os.ReadFile(abs)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	s, faults := parse(b)
	if len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b Fault) int { return a.Line - b.Line })
		return nil, &Faults{File: path, List: faults}
	}
	s.File = abs
	s.settle(filepath.Dir(abs))
	if len(s.Admin) > maxSocket {
		what := fmt.Sprintf("admin: %s is %d bytes long, and a socket's path has at most %d; name a shorter one", s.Admin, len(s.Admin), maxSocket)
		return nil, &Faults{File: path, List: []Fault{{What: what}}}
	}
	return s, nil
}

// maxSocket is the longest path that every system takes for a socket, in bytes:
// macOS has room for 104 with the zero at its end.
const maxSocket = 103

// LoadDefault is Load, but a file that is missing gives the defaults, relative to
// the directory in which it would be.
func LoadDefault(path string) (*Settings, error) {
	s, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	s = Default()
	s.settle(filepath.Dir(abs))
	return s, nil
}

// parse decodes strictly over the defaults and checks the result.
func parse(b []byte) (*Settings, []Fault) {
	s := Default()
	var faults []Fault
	var tree yaml.Node
	if err := yaml.Unmarshal(b, &tree); err != nil {
		return nil, yamlFaults(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil && !errors.Is(err, io.EOF) {
		faults = yamlFaults(err)
	}
	c := check{tree: &tree, faults: faults}
	c.settings(s)
	return s, c.faults
}

var (
	atLine       = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (\S+) not found in type .*$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `(.*)`)? into (.*)$")
	duplicateKey = regexp.MustCompile(`^mapping key (.*) already defined at line (\d+)$`)
)

// yamlFaults words the decoder's errors for people.
func yamlFaults(err error) []Fault {
	lines := []string{err.Error()}
	if t, ok := errors.AsType[*yaml.TypeError](err); ok {
		lines = t.Errors
	}
	var faults []Fault
	for _, text := range lines {
		f := Fault{What: strings.TrimPrefix(text, "yaml: ")}
		if m := atLine.FindStringSubmatch(text); m != nil {
			f.Line, _ = strconv.Atoi(m[1])
			f.What = m[2]
		}
		if m := unknownField.FindStringSubmatch(f.What); m != nil {
			f.What = "unknown key " + m[1]
		} else if m := wrongType.FindStringSubmatch(f.What); m != nil {
			f.What = strings.TrimSpace(fmt.Sprintf("expected %s, found %s %s", goType(m[3]), yamlType(m[1]), quoted(m[2])))
		} else if m := duplicateKey.FindStringSubmatch(f.What); m != nil {
			f.What = fmt.Sprintf("key %s stands twice, first in line %s", strings.Trim(m[1], `"`), m[2])
		}
		faults = append(faults, f)
	}
	return faults
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return strconv.Quote(s)
}

func goType(name string) string {
	switch {
	case name == "string":
		return "a text"
	case name == "time.Duration":
		return "a duration such as 30s or 12h"
	case strings.HasPrefix(name, "int"), strings.HasPrefix(name, "uint"):
		return "a whole number"
	case name == "bool":
		return "true or false"
	case strings.HasPrefix(name, "[]"):
		return "a list"
	}
	return "a mapping of keys"
}

func yamlType(name string) string {
	switch name {
	case "str":
		return "the text"
	case "seq":
		return "a list"
	case "map":
		return "a mapping"
	}
	return "the " + name
}
