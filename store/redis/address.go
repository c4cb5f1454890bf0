package redis

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// Address is where Redis is, as one URL says:
//
//	redis://[USER@]HOST[:PORT][/DB]
//	redis+sentinel://[USER@]HOST[:PORT],…/MASTER[/DB]
//	redis+cluster://[USER@]HOST[:PORT],…
//
// and rediss, rediss+sentinel and rediss+cluster for the same over TLS.
type Address struct {
	TLS      bool
	Cluster  bool
	Sentinel bool
	Hosts    []string // HOST:PORT
	Master   string   // the name under which sentinels know it
	User     string
	DB       int
}

// errAddress is wrapped by what is wrong with an address.
var errAddress = errors.New("not a Redis URL")

// IsAddress reports whether text means to be one.
func IsAddress(text string) bool {
	return strings.HasPrefix(text, "redis:") || strings.HasPrefix(text, "rediss:") || strings.HasPrefix(text, "redis+") || strings.HasPrefix(text, "rediss+")
}

// ParseAddress reads a URL. A password in it is an error: it belongs into a reference.
func ParseAddress(text string) (Address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Address{}, fmt.Errorf("%w: %s", errAddress, strings.TrimPrefix(err.Error(), "parse "))
	}
	var a Address
	scheme, kind, _ := strings.Cut(u.Scheme, "+")
	standard := "6379"
	a.TLS = scheme == "rediss"
	switch {
	case scheme != "redis" && scheme != "rediss":
		return Address{}, fmt.Errorf("%w: scheme %q", errAddress, u.Scheme)
	case kind == "cluster":
		a.Cluster = true
	case kind == "sentinel":
		a.Sentinel, standard = true, "26379"
	case kind != "" || strings.Contains(u.Scheme, "+"):
		return Address{}, fmt.Errorf("%w: scheme %q (redis, redis+sentinel or redis+cluster, or rediss for TLS)", errAddress, u.Scheme)
	}
	if _, has := u.User.Password(); has {
		return Address{}, fmt.Errorf("%w: a password does not belong into it; name where it is with redis.password", errAddress)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return Address{}, fmt.Errorf("%w: it takes no parameters", errAddress)
	}
	a.User = u.User.Username()
	if a.Hosts, err = hosts(u.Host, standard); err != nil {
		return Address{}, err
	}
	return a, a.path(strings.Trim(u.Path, "/"))
}

func hosts(list, standard string) ([]string, error) {
	var out []string
	for h := range strings.SplitSeq(list, ",") {
		host, port, err := net.SplitHostPort(h)
		if err != nil {
			host, port = strings.Trim(h, "[]"), standard
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
			return nil, fmt.Errorf("%w: %q is not HOST:PORT", errAddress, h)
		}
		out = append(out, net.JoinHostPort(host, port))
	}
	return out, nil
}

// path reads what stands behind the hosts.
func (a *Address) path(path string) error {
	if a.Sentinel {
		if a.Master, path, _ = strings.Cut(path, "/"); a.Master == "" {
			return fmt.Errorf("%w: the name of the master is missing (redis+sentinel://HOST/MASTER)", errAddress)
		}
	}
	switch {
	case !a.Sentinel && !a.Cluster && len(a.Hosts) > 1:
		return fmt.Errorf("%w: several hosts are sentinels or a cluster; write redis+sentinel or redis+cluster", errAddress)
	case path == "":
		return nil
	case a.Cluster:
		return fmt.Errorf("%w: a cluster has no databases", errAddress)
	}
	n, err := strconv.ParseUint(path, 10, 16)
	if err != nil {
		return fmt.Errorf("%w: database %q is no number", errAddress, path)
	}
	a.DB = int(n)
	return nil
}

// String is the address as it may be shown.
func (a Address) String() string {
	scheme := "redis"
	if a.TLS {
		scheme = "rediss"
	}
	switch {
	case a.Cluster:
		scheme += "+cluster"
	case a.Sentinel:
		scheme += "+sentinel"
	}
	return scheme + "://" + strings.Join(a.Hosts, ",")
}
