package ship

import (
	"encoding/json"
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chaperone/audit"
)

var realCollector = flag.Bool("collector", false, "build OpenTelemetry's own receiver (a minute, from the network) and send to it")

// TestCollector sends logs and traces to the receiver of OpenTelemetry's collector: it
// takes each line, to the byte, and a span of each request that has ended.
func TestCollector(t *testing.T) {
	if !*realCollector {
		t.Skip("-collector builds it")
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "collector"), ".")
	build.Dir = "testdata/collector"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(dir, "collector"), address)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = out, &said
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the collector", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	s := newScribe(t)
	s.odd()
	s.write(200)
	told := func(m string) { t.Errorf("the collector says: %s", m) }
	closeSink(t, s.sink(Options{Name: "logs", Target: NewOTLPLogs(HTTPOptions{URL: "http://" + address}, "here", told)}))
	closeSink(t, s.sink(Options{Name: "spans", Target: NewOTLPTraces(HTTPOptions{URL: "http://" + address}, "here", told)}))
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said.String())
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	lines, spans := map[uint64]string{}, map[string]bool{}
	for one := range strings.Lines(string(b)) {
		var got struct {
			Kind, Name, Body, Level, Trace, Span string
			Resource, Attributes                 map[string]any
		}
		if err := json.Unmarshal([]byte(one), &got); err != nil {
			t.Fatal(err)
		}
		if got.Resource["service.name"] != "chaperone" {
			t.Errorf("no service in %s", one)
		}
		if got.Kind == "span" {
			spans[got.Span] = got.Trace != "" && got.Attributes["chaperone.id"] != ""
			continue
		}
		n, err := audit.Number([]byte(got.Body))
		if err != nil || got.Attributes["chaperone.seq"] != float64(n) || !strings.HasPrefix(got.Name, "chaperone.") {
			t.Errorf("%v %s", err, one)
		}
		lines[n] = got.Body
	}
	same(t, lines, s.lines())
	if len(spans) != 200 {
		t.Errorf("%d spans, want 200", len(spans))
	}
}
