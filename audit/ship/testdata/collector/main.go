// Command collector is the OTLP receiver of OpenTelemetry's collector. It writes down
// what it takes, a line of JSON for each log record and span, until its input ends.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

// taken is one log record or span.
type taken struct {
	Kind       string         `json:"kind"` // log or span
	Resource   map[string]any `json:"resource"`
	Name       string         `json:"name"`
	Body       string         `json:"body"`
	Level      string         `json:"level"` // severity of a record, status of a span
	Trace      string         `json:"trace"`
	Span       string         `json:"span"`
	Attributes map[string]any `json:"attributes"`
}

type scribe struct {
	mu  sync.Mutex
	out *json.Encoder
}

func (s *scribe) write(t taken) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Encode(t)
}

func (s *scribe) logs(_ context.Context, all plog.Logs) (errs error) {
	for _, of := range all.ResourceLogs().All() {
		for _, scope := range of.ScopeLogs().All() {
			for _, r := range scope.LogRecords().All() {
				trace, span := r.TraceID(), r.SpanID()
				errs = errors.Join(errs, s.write(taken{"log", of.Resource().Attributes().AsRaw(), r.EventName(), r.Body().AsString(), r.SeverityText(),
					hex.EncodeToString(trace[:]), hex.EncodeToString(span[:]), r.Attributes().AsRaw()}))
			}
		}
	}
	return errs
}

func (s *scribe) traces(_ context.Context, all ptrace.Traces) (errs error) {
	for _, of := range all.ResourceSpans().All() {
		for _, scope := range of.ScopeSpans().All() {
			for _, p := range scope.Spans().All() {
				trace, span := p.TraceID(), p.SpanID()
				errs = errors.Join(errs, s.write(taken{"span", of.Resource().Attributes().AsRaw(), p.Name(), "", p.Status().Code().String(),
					hex.EncodeToString(trace[:]), hex.EncodeToString(span[:]), p.Attributes().AsRaw()}))
			}
		}
	}
	return errs
}

// receive listens on an address until its input ends.
func receive(ctx context.Context, address string) error {
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	if err := confmap.NewFromStringMap(map[string]any{"protocols": map[string]any{"http": map[string]any{"endpoint": address}}}).Unmarshal(config); err != nil {
		return err
	}
	s := &scribe{out: json.NewEncoder(os.Stdout)}
	logs, err := consumer.NewLogs(s.logs)
	if err != nil {
		return err
	}
	traces, err := consumer.NewTraces(s.traces)
	if err != nil {
		return err
	}
	settings := receivertest.NewNopSettings(factory.Type())
	l, err := factory.CreateLogs(ctx, settings, config, logs)
	if err != nil {
		return err
	}
	t, err := factory.CreateTraces(ctx, settings, config, traces)
	if err != nil {
		return err
	}
	for _, part := range []component.Component{l, t} {
		if err := part.Start(ctx, componenttest.NewNopHost()); err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, l.Shutdown(ctx), t.Shutdown(ctx))
}

func main() {
	if err := receive(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
