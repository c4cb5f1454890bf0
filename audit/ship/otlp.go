package ship

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"chaperone/audit"
)

// otlp posts to an OpenTelemetry collector.
type otlp struct {
	*poster
	host   string
	notice func(string)
}

// NewOTLPLogs posts lines as log records (OTLP/HTTP, protobuf) to URL/v1/logs. Records
// that a collector says it will never take are told of with notice, as the protocol
// forbids to send them again.
func NewOTLPLogs(o HTTPOptions, host string, notice func(string)) Target {
	return otlpLogs{otlp{newPoster(o), host, notice}}
}

type otlpLogs struct{ otlp }

// Send implements [Target].
func (o otlpLogs) Send(ctx context.Context, batch []Item) error {
	records := make([]*logs.LogRecord, len(batch))
	for i := range batch {
		records[i] = logRecord(&batch[i])
	}
	return o.send(ctx, "/v1/logs", &logs.LogsData{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  o.resource(),
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: "chaperone/decisions"}, LogRecords: records}},
	}}})
}

// NewOTLPTraces posts each request, when it has ended, as a span to URL/v1/traces.
func NewOTLPTraces(o HTTPOptions, host string, notice func(string)) Target {
	return otlpTraces{otlp{newPoster(o), host, notice}}
}

type otlpTraces struct{ otlp }

// Send implements [Target].
func (o otlpTraces) Send(ctx context.Context, batch []Item) error {
	var spans []*trace.Span
	for i := range batch {
		if s := spanOf(&batch[i]); s != nil {
			spans = append(spans, s)
		}
	}
	if len(spans) == 0 {
		return nil
	}
	return o.send(ctx, "/v1/traces", &trace.TracesData{ResourceSpans: []*trace.ResourceSpans{{
		Resource:   o.resource(),
		ScopeSpans: []*trace.ScopeSpans{{Scope: &common.InstrumentationScope{Name: "chaperone/decisions"}, Spans: spans}},
	}}})
}

func (o otlp) resource() *resource.Resource {
	return &resource.Resource{Attributes: []*common.KeyValue{textAttribute("service.name", "chaperone"), textAttribute("host.name", o.host)}}
}

// send posts a message; LogsData and TracesData are on the wire as the requests are.
func (o otlp) send(ctx context.Context, path string, m proto.Message) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding for OpenTelemetry: %w", err)
	}
	answer, err := o.post(ctx, path, "application/x-protobuf", body, true)
	if err != nil {
		return err
	}
	if n, why := rejected(answer); n > 0 {
		o.notice(fmt.Sprintf("the collector will never take %d records of a batch: %s", n, audit.Printable(why)))
	}
	return nil
}

// rejected reads partial_success of a collector's answer: how many records it did not
// take, and why. An answer that is none says nothing.
func rejected(answer []byte) (n uint64, why string) {
	number, kind, at := protowire.ConsumeTag(answer)
	if at < 0 || number != 1 || kind != protowire.BytesType {
		return 0, ""
	}
	partial, size := protowire.ConsumeBytes(answer[at:])
	if size < 0 {
		return 0, ""
	}
	for len(partial) > 0 {
		number, kind, at := protowire.ConsumeTag(partial)
		if at < 0 {
			return n, why
		}
		partial = partial[at:]
		switch {
		case number == 1 && kind == protowire.VarintType:
			n, size = protowire.ConsumeVarint(partial)
		case number == 2 && kind == protowire.BytesType:
			var text []byte
			text, size = protowire.ConsumeBytes(partial)
			why = string(text)
		default:
			size = protowire.ConsumeFieldValue(number, kind, partial)
		}
		if size < 0 {
			return n, why
		}
		partial = partial[size:]
	}
	return n, why
}

// logRecord is one line as a log record: its own JSON as body, the fields by which
// people search as attributes.
func logRecord(i *Item) *logs.LogRecord {
	e := i.Event
	r := &logs.LogRecord{
		TimeUnixNano: uint64(e.Time.UnixNano()), ObservedTimeUnixNano: uint64(e.Time.UnixNano()),
		SeverityNumber: logs.SeverityNumber_SEVERITY_NUMBER_INFO, SeverityText: "INFO", EventName: "chaperone." + e.Event,
		Body:       &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: string(i.Line)}},
		Attributes: attributes(e),
	}
	r.Attributes = append(r.Attributes, numberAttribute("chaperone.seq", int64(i.Seq)))
	switch {
	case e.Alarm != "":
		r.SeverityNumber, r.SeverityText = logs.SeverityNumber_SEVERITY_NUMBER_ERROR, "ERROR"
	case e.Decision.Result == "deny" || e.Decision.Result == "ask":
		r.SeverityNumber, r.SeverityText = logs.SeverityNumber_SEVERITY_NUMBER_WARN, "WARN"
	}
	d := e
	if i.Decision != nil {
		d = i.Decision
	}
	if c, ok := contextOf(d); ok {
		r.TraceId, r.SpanId = c.trace, c.span
	}
	return r
}

// attributes are the fields by which the log is searched, by their names there.
func attributes(e *audit.Event) []*common.KeyValue {
	var list []*common.KeyValue
	for _, field := range audit.Fields() {
		if field == "trace" {
			continue
		}
		for _, v := range e.Values(field) {
			if v != "" {
				list = append(list, textAttribute("chaperone."+field, v))
				break
			}
		}
	}
	if e.Replica != "" {
		list = append(list, textAttribute("chaperone.replica", e.Replica))
	}
	if e.Event == "outcome" {
		list = append(list, numberAttribute("http.response.status_code", int64(e.Outcome.Status)))
		if e.Outcome.Error != "" {
			list = append(list, textAttribute("error.type", e.Outcome.Error))
		}
	}
	return list
}

func textAttribute(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.ToValidUTF8(value, "\ufffd")}}}
}

func numberAttribute(key string, value int64) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: value}}}
}

// spanContext is where a request stands in its trace.
type spanContext struct{ trace, span, parent []byte }

// contextOf reads the trace context of a decision, see [audit.SpanOf].
func contextOf(d *audit.Event) (c spanContext, ok bool) {
	parts := strings.Split(d.Traceparent, "-")
	if len(parts) < 4 {
		return c, false
	}
	var err, perr error
	c.trace, err = hex.DecodeString(parts[1])
	c.parent, perr = hex.DecodeString(parts[2])
	span, sok := audit.SpanOf(d.ID)
	if err != nil || perr != nil || !sok || len(c.trace) != 16 || len(c.parent) != 8 {
		return c, false
	}
	c.span = span[:]
	if slices.Equal(c.span, c.parent) {
		c.parent = nil // the trace began here
	}
	return c, true
}

// spanOf is a request that has ended as a span.
func spanOf(i *Item) *trace.Span {
	d, e := i.Decision, i.Event
	if e.Event != "outcome" || d == nil {
		return nil
	}
	c, ok := contextOf(d)
	if !ok {
		return nil
	}
	name := d.Action.ID
	if name == "" {
		name = strings.TrimSpace(d.Request.Method + " " + d.Request.Host)
	}
	s := &trace.Span{
		TraceId: c.trace, SpanId: c.span, ParentSpanId: c.parent, Name: name, Kind: trace.Span_SPAN_KIND_CLIENT,
		StartTimeUnixNano: uint64(d.Time.UnixNano()), EndTimeUnixNano: uint64(e.Time.UnixNano()),
		Attributes: append(attributes(d), textAttribute("http.request.method", d.Request.Method), textAttribute("server.address", d.Request.Host),
			numberAttribute("http.response.status_code", int64(e.Outcome.Status)), numberAttribute("chaperone.added_us", e.Outcome.AddedUS), numberAttribute("chaperone.upstream_us", e.Outcome.UpstreamUS)),
		Status: &trace.Status{Code: trace.Status_STATUS_CODE_UNSET},
	}
	if e.Outcome.Error != "" || e.Outcome.Status >= 400 {
		s.Status = &trace.Status{Code: trace.Status_STATUS_CODE_ERROR, Message: e.Outcome.Error}
	}
	return s
}
