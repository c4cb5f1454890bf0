package settings

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"chaperone/store/redis"
)

// check collects what is wrong with decoded settings, each with the line of the
// key it stands under.
type check struct {
	tree   *yaml.Node
	faults []Fault
}

// line returns the line of the value at a path of keys and list indexes, or of the
// nearest that exists.
func (c *check) line(path ...string) int {
	n := c.tree
	if len(n.Content) == 0 {
		return 0
	}
	n = n.Content[0]
	for _, key := range path {
		next := child(n, key)
		if next == nil {
			break
		}
		n = next
	}
	if n == c.tree.Content[0] {
		return 0
	}
	return n.Line
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.SequenceNode {
		if i, err := strconv.Atoi(key); err == nil && i < len(n.Content) {
			return n.Content[i]
		}
		return nil
	}
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func (c *check) fault(path []string, format string, args ...any) {
	c.faults = append(c.faults, Fault{c.line(path...), strings.Join(path, ".") + ": " + fmt.Sprintf(format, args...)})
}

func at(path ...string) []string { return path }

// settings checks all of them.
func (c *check) settings(s *Settings) {
	c.address(at("listen"), s.Listen)
	c.advertised(s.Advertise)
	if s.Metrics != "" {
		c.address(at("metrics"), s.Metrics)
	}
	if path, ok := strings.CutPrefix(s.Admin, "unix:"); s.Admin != "" && (!ok || path == "") {
		c.fault(at("admin"), "%q is not unix:PATH", s.Admin)
	}
	c.store(s)
	if s.State == "" {
		c.fault(at("state"), "must not be empty")
	}
	if u := s.Policy.Status; u != "" {
		if parsed, err := url.Parse(u); err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
			c.fault(at("policy", "status"), "%q is no URL such as https://HOST", u)
		}
		if !Remote(s.Policy.Path) {
			c.fault(at("policy", "status"), "it is told about bundles of a server, and policy.path names none")
		}
	}
	c.pair(at("tls"), s.TLS)
	c.pair(at("ca"), s.CA)
	c.reference(at("key"), s.Key)
	c.sources(&s.Sources)
	c.logins(s.Logins)
	if s.UnknownHosts != DenyUnknown && s.UnknownHosts != TunnelUnknown {
		c.fault(at("unknown_hosts"), "%q is neither deny nor tunnel", s.UnknownHosts)
	}
	if s.Drain < 0 {
		c.fault(at("drain"), "%v is negative", s.Drain)
	}
	if s.DrainNotice < 0 {
		c.fault(at("drain_notice"), "%v is negative", s.DrainNotice)
	}
	if s.Log.MaxSize < 0 || s.Log.MaxAge < 0 || s.Log.Keep < 0 {
		c.fault(at("log"), "max_size, max_age and keep must not be negative")
	}
	if s.Log.Peers != "" {
		c.address(at("log", "peers"), s.Log.Peers)
		if s.Store == "bolt" {
			c.fault(at("log", "peers"), "there are no other replicas with store: bolt")
		}
	}
	if p := s.Log.Checkpoints; p.Every < 0 || p.Lines < 0 {
		c.fault(at("log", "checkpoints"), "every and lines must not be negative")
	}
	c.sinks(s.Sinks)
	c.upstream(&s.Upstream)
	c.services(s)
}

func (c *check) address(path []string, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		c.fault(path, "%q is not HOST:PORT", value)
	}
}

// advertised checks the URL that goes into HTTPS_PROXY, to which agent and token are added.
func (c *check) advertised(text string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Port() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https" {
		c.fault(at("advertise"), "%q is no URL such as http://HOST:PORT", text)
	}
}

func (c *check) pair(path []string, p Pair) {
	if (p.Cert == "") != (p.Key == "") {
		c.fault(path, "cert and key come together")
	}
}

func (c *check) store(s *Settings) {
	if s.Store != "bolt" {
		if _, err := redis.ParseAddress(s.Store); err != nil && redis.IsAddress(s.Store) {
			c.fault(at("store"), "%v", err)
		} else if err != nil {
			c.fault(at("store"), "%q is not a store that this program has; use bolt or redis://HOST:PORT", s.Store)
		}
	}
	if s.StoreStale < time.Second {
		c.fault(at("store_stale"), "%v is too short to bridge anything (at least 1s)", s.StoreStale)
	}
	if err := redis.CheckPrefix(s.Redis.Prefix); err != nil {
		c.fault(at("redis", "prefix"), "%v", err)
	}
	c.pair(at("redis"), Pair{s.Redis.Cert, s.Redis.Key})
	c.reference(at("redis", "password"), s.Redis.Password)
	c.reference(at("redis", "sentinel_password"), s.Redis.SentinelPassword)
}

func (c *check) reference(path []string, r Reference) {
	n := 0
	for _, set := range []bool{r.File != "", r.Env != "", len(r.Command) > 0, r.Keyring != ""} {
		if set {
			n++
		}
	}
	if n > 1 {
		c.fault(path, "file, env, command and keyring exclude each other")
	}
}

func (c *check) upstream(u *Upstream) {
	for i, text := range u.AllowPrivate {
		_, cidr := netip.ParsePrefix(text)
		_, addr := netip.ParseAddr(text)
		_, _, hostPort := net.SplitHostPort(text)
		if cidr != nil && addr != nil && hostPort != nil {
			c.fault(at("upstream", "allow_private", strconv.Itoa(i)), "%q is neither a network (10.0.0.0/8), an address nor HOST:PORT", text)
		}
	}
	for host, to := range u.Resolve {
		if _, err := netip.ParseAddrPort(to); err != nil {
			c.fault(at("upstream", "resolve", host), "%q is not ADDRESS:PORT", to)
		}
	}
	if u.Proxy != "" {
		p, err := url.Parse(u.Proxy)
		if err != nil || p.Host == "" || p.Scheme != "http" && p.Scheme != "https" {
			c.fault(at("upstream", "proxy"), "not http://HOST:PORT")
		} else if p.User != nil {
			c.fault(at("upstream", "proxy"), "a password does not belong into this file")
		}
	}
	if u.HeaderTimeout < 0 {
		c.fault(at("upstream", "header_timeout"), "%v is negative", u.HeaderTimeout)
	}
}

func (c *check) services(s *Settings) {
	var seen []string
	for i, service := range s.Services {
		where := at("services", strconv.Itoa(i))
		if service.Name == "" {
			c.fault(where, "service: the name is missing")
		} else if slices.Contains(seen, service.Name) {
			c.fault(where, "service %s stands twice", service.Name)
		}
		seen = append(seen, service.Name)
	}
}

// settle makes paths absolute, relative ones from dir. What is kept in the state
// directory unless told otherwise follows it.
func (s *Settings) settle(dir string) {
	s.Admin = strings.TrimPrefix(s.Admin, "unix:")
	if s.Admin == "" {
		s.Admin = filepath.Join(s.State, "admin.sock")
	}
	if s.Log.Path == "" {
		s.Log.Path = filepath.Join(s.State, "decisions.jsonl")
	}
	if s.Log.Checkpoints.Key == "" {
		s.Log.Checkpoints.Key = filepath.Join(s.State, "log.key")
	}
	paths := []*string{&s.Log.Checkpoints.Key, &s.State, &s.Admin, &s.Log.Path, &s.Policy.Path, &s.Policy.Shadow, &s.Key.File, &s.CA.Cert, &s.CA.Key, &s.TLS.Cert, &s.TLS.Key,
		&s.Sources.Vault.Token.File, &s.Sources.AWS.Keys.File, &s.Sources.Google.Token.File, &s.Redis.Password.File, &s.Redis.SentinelPassword.File, &s.Redis.Cert, &s.Redis.Key}
	for i := range s.Log.Checkpoints.To {
		paths = append(paths, &s.Log.Checkpoints.To[i])
	}
	for i := range s.Sinks {
		sink := &s.Sinks[i]
		paths = append(paths, &sink.Client.Cert, &sink.Client.Key)
		for name, ref := range sink.Headers {
			if ref.File != "" && !filepath.IsAbs(ref.File) {
				ref.File = filepath.Join(dir, ref.File)
				sink.Headers[name] = ref
			}
		}
		for j := range sink.Roots {
			paths = append(paths, &sink.Roots[j])
		}
	}
	for service, l := range s.Logins {
		if l.ClientSecret.File != "" && !filepath.IsAbs(l.ClientSecret.File) {
			l.ClientSecret.File = filepath.Join(dir, l.ClientSecret.File)
			s.Logins[service] = l
		}
	}
	for i := range s.Upstream.Roots {
		paths = append(paths, &s.Upstream.Roots[i])
	}
	for i := range s.Redis.Roots {
		paths = append(paths, &s.Redis.Roots[i])
	}
	for i := range s.Catalogues {
		paths = append(paths, &s.Catalogues[i])
	}
	paths = append(paths, &s.Policy.Signing.Key.File, &s.Policy.Token.File)
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) && !Remote(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}
