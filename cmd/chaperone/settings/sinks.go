package settings

import (
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kinds of sinks.
const (
	OCSF    = "ocsf"
	OPA     = "opa"
	OTLP    = "otlp"
	Traces  = "otlp_traces"
	Syslog  = "syslog"
	Webhook = "webhook"
)

var sinkName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,40}$`)

// sinks checks where the log goes.
func (c *check) sinks(list []Sink) {
	var seen []string
	for i, s := range list {
		where := at("sinks", strconv.Itoa(i))
		if !sinkName.MatchString(s.Name) {
			c.fault(where, "name: %q is not lower-case letters, digits, - and _", s.Name)
		}
		if slices.Contains(seen, s.Name) {
			c.fault(where, "sink %s stands twice", s.Name)
		}
		seen = append(seen, s.Name)
		if !slices.Contains([]string{OCSF, OPA, OTLP, Traces, Syslog, Webhook}, s.Kind) {
			c.fault(append(where, "kind"), "%q is not ocsf, opa, otlp, otlp_traces, syslog or webhook", s.Kind)
		}
		c.sinkURL(append(where, "url"), s.Kind, s.URL)
		c.pair(append(where, "client"), s.Client)
		for _, e := range s.Events {
			if e != "decision" && e != "outcome" && e != "alarm" {
				c.fault(append(where, "events"), "%q is not decision, outcome or alarm", e)
			}
		}
		if s.From != "" && s.From != "start" && s.From != "now" {
			c.fault(append(where, "from"), "%q is neither start nor now", s.From)
		}
	}
}

// sinkURL demands TLS but to this machine: the log says who does what.
func (c *check) sinkURL(path []string, kind, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		c.fault(path, "is no URL")
		return
	}
	if u.User != nil {
		c.fault(path, "a password does not belong into this file; use headers with a reference")
	}
	if kind == Syslog {
		if u.Scheme != "tls" || u.Port() == "" {
			c.fault(path, "syslog wants tls://HOST:PORT")
		}
		return
	}
	if u.Scheme == "https" || u.Scheme == "http" && local(u.Hostname()) {
		return
	}
	c.fault(path, "wants https://; http:// only to this machine")
}

func local(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback()
	}
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}
