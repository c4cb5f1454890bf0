package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"chaperone/audit/ship"
	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
	"chaperone/policy/opa"
)

// lastWords is how long sinks may go on sending when the proxy stops.
const lastWords = 5 * time.Second

// openSinks begins to send the log where the settings say.
func (r *road) openSinks(ctx context.Context) error {
	if len(r.s.Sinks) == 0 {
		return nil
	}
	if err := r.freshMask(ctx); err != nil {
		return err
	}
	for i := range r.s.Sinks {
		c := &r.s.Sinks[i]
		target, err := r.target(ctx, c)
		if err != nil {
			return problem.Failure(fmt.Errorf("opening sink %s: %w", c.Name, err), "mend sinks: in config.yaml")
		}
		s, err := ship.Start(ship.Options{
			Name: c.Name, Path: r.s.Log.Path, Cursor: filepath.Join(r.s.State, "sinks", c.Name+".json"), Target: target,
			Events: c.Events, FromNow: c.From == "now", Mask: r.masked,
			Notice:    func(m string) { r.logger.Warn("decision log", "notice", m) },
			Overtaken: func(m string) { r.alarm("sink_overtaken", m) },
		})
		if err != nil {
			return errors.Join(err, target.Close())
		}
		r.sinks = append(r.sinks, s)
	}
	r.metrics.Each("chaperone_sink_behind_lines", "Lines of the decision log that a sink has not taken yet.", "sink", r.sinkFigures(func(s ship.Status) float64 { return float64(s.Behind) }))
	r.metrics.Each("chaperone_sink_lost_lines", "Lines that were gone from the log before a sink took them.", "sink", r.sinkFigures(func(s ship.Status) float64 { return float64(s.Lost) }))
	r.metrics.Each("chaperone_sink_failing_seconds", "For how long a sink has failed; 0 when it works.", "sink", r.sinkFigures(func(s ship.Status) float64 {
		if s.Error == "" {
			return 0
		}
		return time.Since(s.Failing).Seconds()
	}))
	return nil
}

func (r *road) sinkFigures(f func(ship.Status) float64) func() map[string]float64 {
	return func() map[string]float64 {
		all := map[string]float64{}
		for _, s := range r.sinks {
			st := s.Status()
			all[st.Name] = f(st)
		}
		return all
	}
}

// closeSinks lets sinks send what is left.
func (r *road) closeSinks() error {
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	var errs error
	for _, s := range r.sinks {
		errs = errors.Join(errs, s.Close(ctx))
	}
	return errs
}

// freshMask reads the mask of the policy. One with a fault never replaces a good one.
func (r *road) freshMask(ctx context.Context) error {
	if len(r.s.Sinks) == 0 {
		return nil
	}
	files, err := policyFiles(r.s)
	if err != nil {
		return err
	}
	mask, err := opa.LoadMask(ctx, files)
	if err != nil {
		return problem.Failure(fmt.Errorf("loading mask: %w", err), "mend package chaperone.log of the policy; nothing is sent unmasked")
	}
	r.mask.Store(mask)
	return nil
}

// masked takes out of a line what must not leave.
func (r *road) masked(ctx context.Context, line []byte) ([]byte, error) {
	return r.mask.Load().Apply(ctx, line)
}

// target makes the way to one sink.
func (r *road) target(ctx context.Context, c *settings.Sink) (ship.Target, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, errors.New("its url is none")
	}
	conf, err := sinkTLS(c)
	if err != nil {
		return nil, err
	}
	o := ship.HTTPOptions{URL: strings.TrimSuffix(c.URL, "/"), Headers: map[string]string{}, TLS: conf}
	for name, ref := range c.Headers {
		if o.Headers[name], err = resolve(ctx, ref); err != nil {
			return nil, fmt.Errorf("reading header %s: %w", name, err)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	notice := func(m string) { r.alarm("sink_overtaken", "sink "+c.Name+": "+m) }
	switch c.Kind {
	case settings.OCSF:
		return ship.NewOCSF(o), nil
	case settings.OPA:
		return ship.NewOPA(o), nil
	case settings.OTLP:
		return ship.NewOTLPLogs(o, host, notice), nil
	case settings.Traces:
		return ship.NewOTLPTraces(o, host, notice), nil
	case settings.Syslog:
		conf.ServerName = u.Hostname()
		return ship.NewSyslog(ship.SyslogOptions{Address: u.Host, TLS: conf, Hostname: host, PID: os.Getpid()}), nil
	}
	return ship.NewWebhook(o), nil
}

func sinkTLS(c *settings.Sink) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(c.Roots) > 0 {
		conf.RootCAs = x509.NewCertPool()
		for _, path := range c.Roots {
			b, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("reading roots: %w", err)
			}
			if !conf.RootCAs.AppendCertsFromPEM(b) {
				return nil, fmt.Errorf("reading roots: %s holds no PEM certificate", path)
			}
		}
	}
	if c.Client.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Client.Cert, c.Client.Key)
		if err != nil {
			return nil, fmt.Errorf("reading client certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// resolve reads the secret that a reference names, without the newline behind it.
func resolve(ctx context.Context, ref settings.Reference) (string, error) {
	var b []byte
	var err error
	switch {
	case ref.Env != "":
		text, ok := os.LookupEnv(ref.Env)
		if !ok {
			return "", fmt.Errorf("variable %s is not set", ref.Env)
		}
		b = []byte(text)
	case len(ref.Command) > 0:
		b, err = exec.CommandContext(ctx, ref.Command[0], ref.Command[1:]...).Output()
	case ref.File != "":
		b, err = os.ReadFile(ref.File)
	default:
		return "", errors.New("it names neither file, env nor command")
	}
	return strings.TrimRight(string(b), "\r\n"), err
}
