package ship

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"chaperone/audit"
)

func TestOTLP(t *testing.T) {
	c, s := newCollector(t), newScribe(t)
	k := s.sink(Options{Target: NewOTLPLogs(c.options(), "here", func(string) {})})
	s.write(100)
	closeSink(t, k)
	got := map[uint64]string{}
	for _, body := range c.took() {
		var m logs.LogsData
		if err := proto.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		for _, r := range m.ResourceLogs[0].ScopeLogs[0].LogRecords {
			line := r.Body.GetStringValue()
			n, _ := audit.Number([]byte(line))
			got[n] = line
			if len(r.TraceId) != 16 && strings.Contains(line, "traceparent") {
				t.Errorf("no trace in %s", line)
			}
		}
	}
	same(t, got, s.lines())
	traces := newCollector(t)
	k = s.sink(Options{Target: NewOTLPTraces(traces.options(), "here", func(string) {})})
	closeSink(t, k)
	spans := map[string]bool{}
	for _, body := range traces.took() {
		var m trace.TracesData
		if err := proto.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		for _, sp := range m.ResourceSpans[0].ScopeSpans[0].Spans {
			if len(sp.SpanId) != 8 || len(sp.TraceId) != 16 || sp.Name != "github:issues/create" || sp.EndTimeUnixNano < sp.StartTimeUnixNano {
				t.Errorf("%v", sp)
			}
			spans[string(sp.SpanId)] = true
		}
	}
	if len(spans) != 100 {
		t.Errorf("%d spans, want 100", len(spans))
	}
}

func TestPartialSuccess(t *testing.T) {
	// partial_success {rejected_log_records: 3, error_message: "too old"}
	answer := []byte{0x0a, 11, 0x08, 3, 0x12, 7, 't', 'o', 'o', ' ', 'o', 'l', 'd'}
	if n, why := rejected(answer); n != 3 || why != "too old" {
		t.Errorf("%d %q", n, why)
	}
	for _, b := range [][]byte{nil, {}, []byte("rubbish"), answer[:5], {0x0a, 200}} {
		if n, _ := rejected(b); n != 0 && n != 3 {
			t.Errorf("%q: %d", b, n)
		}
	}
}

func TestOPA(t *testing.T) {
	c, s := newCollector(t), newScribe(t)
	k := s.sink(Options{Target: NewOPA(c.options())})
	s.write(30)
	closeSink(t, k)
	ids := map[string]bool{}
	for _, body := range c.took() {
		var batch []map[string]any
		if err := json.Unmarshal(body, &batch); err != nil {
			t.Fatal(err)
		}
		for _, v := range batch {
			ids[v["decision_id"].(string)] = true
			if v["path"] != "chaperone/decision" || v["result"].(map[string]any)["result"] == nil || v["input"].(map[string]any)["action"] == nil || v["timestamp"] == nil {
				t.Errorf("%v", v)
			}
		}
	}
	if len(ids) != 30 {
		t.Errorf("%d decisions, want 30", len(ids))
	}
}

// frames reads a connection as RFC 5425 and RFC 5424 have it, strictly.
func frames(r *bufio.Reader, take func(message string)) error {
	form := regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) chaperone (\d{1,128}) (decision|outcome|alarm) \[meta sequenceId="(\d{1,10})"\] (\{.*\})$`)
	for {
		length, err := r.ReadString(' ')
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil || n <= 0 || length[0] == '0' {
			return fmt.Errorf("MSG-LEN %q", length)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		m := form.FindSubmatch(b)
		if m == nil {
			return fmt.Errorf("not a message: %q", b)
		}
		if pri, _ := strconv.Atoi(string(m[1])); pri/8 != facility {
			return fmt.Errorf("priority %d", pri)
		}
		take(string(m[7]))
	}
}

// TestSyslog has the server close connections in the middle: each line arrives.
func TestSyslog(t *testing.T) {
	c := newCollector(t) // for its certificate
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: c.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[uint64]string{}
	conns := 0
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns++
			limit := conns < 3
			serving.Go(func() { serveSyslog(t, conn, limit, &mu, got) })
		}
	})
	s := newScribe(t)
	conf := c.options().TLS
	conf.ServerName = "example.com"
	target := NewSyslog(SyslogOptions{Address: ln.Addr().String(), TLS: conf, Hostname: "host.example.com", PID: 42})
	k := s.sink(Options{Target: target, Batch: 20})
	for range 10 {
		s.write(15)
		until(t, "the sending", func() bool { return k.Status().Behind == 0 })
	}
	closeSink(t, k)
	ln.Close()
	serving.Wait()
	same(t, got, s.lines())
}

func serveSyslog(t *testing.T, conn net.Conn, limit bool, mu *sync.Mutex, got map[uint64]string) {
	defer conn.Close()
	taken := 0
	err := frames(bufio.NewReader(conn), func(line string) {
		n, err := audit.Number([]byte(line))
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		got[n] = line
		if taken++; limit && taken == 60 {
			conn.Close()
		}
	})
	if err != nil && err != io.EOF && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// checkOCSF holds an event against testdata/ocsf-6003.json, the part of OCSF's schema
// that is about what we write.
func checkOCSF(t *testing.T, v map[string]any) {
	t.Helper()
	b, err := os.ReadFile("testdata/ocsf-6003.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	for _, fault := range conform("event", schema, v) {
		t.Error(fault)
	}
}

// conform checks the keywords of JSON Schema that the file uses: type, required,
// properties, additionalProperties, items, enum, anyOf.
func conform(at string, schema map[string]any, v any) (faults []string) {
	if want, ok := schema["type"].(string); ok && want != kindOf(v) && !(want == "number" && kindOf(v) == "integer") {
		return []string{fmt.Sprintf("%s is %s, want %s", at, kindOf(v), want)}
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		faults = append(faults, fmt.Sprintf("%s is %v, want one of %v", at, v, enum))
	}
	if any, ok := schema["anyOf"].([]any); ok && !slices.ContainsFunc(any, func(s interface{}) bool { return len(conform(at, s.(map[string]interface{}), v)) == 0 }) {
		faults = append(faults, at+" is as none of anyOf wants it")
	}
	if items, ok := schema["items"].(map[string]any); ok {
		for i, x := range v.([]any) {
			faults = append(faults, conform(fmt.Sprintf("%s[%d]", at, i), items, x)...)
		}
	}
	o, ok := v.(map[string]any)
	if !ok {
		return faults
	}
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := o[name.(string)]; !ok {
			faults = append(faults, at+" lacks "+name.(string))
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, x := range o {
		p, known := properties[name].(map[string]any)
		if known {
			faults = append(faults, conform(at+"."+name, p, x)...)
		} else if schema["additionalProperties"] == false {
			faults = append(faults, at+" has "+name+", which the class does not know")
		}
	}
	return faults
}

func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "null"
}
