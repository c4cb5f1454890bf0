package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"chaperone/cmd/chaperone/settings"
)

// exported starts a road with a sink and returns what its metrics say.
func exported(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := settings.Default()
	s.State, s.Admin, s.Log.Path = dir, filepath.Join(dir, "a.sock"), filepath.Join(dir, "decisions.jsonl")
	s.Sinks = []settings.Sink{{Name: "none", Kind: settings.Webhook, URL: "http://127.0.0.1:1"}}
	r, err := assemble(t.Context(), s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	r.alarm("log_altered", "for the test")
	r.metrics.Reloaded("policy", nil)
	w := httptest.NewRecorder()
	r.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// TestDashboardAndAlertsLoad holds every metric that dashboard and alert rules name
// against those that the program has, and has promtool check the rules and the metrics
// where it is installed.
func TestDashboardAndAlertsLoad(t *testing.T) {
	text := exported(t)
	observe := filepath.Join("..", "..", "docs", "observe")
	rules, err := os.ReadFile(filepath.Join(observe, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	board, err := os.ReadFile(filepath.Join(observe, "grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(board) {
		t.Error("grafana.json is no JSON")
	}
	known := append(families(text), "chaperone_requests_total") // which has no line before the first request
	suffix := regexp.MustCompile(`_(?:bucket|sum|count)$`)
	named := regexp.MustCompile(`\bchaperone_[a-z_]+`).FindAllString(string(rules)+string(board), -1)
	for _, name := range named {
		if !slices.Contains(known, name) && !slices.Contains(known, suffix.ReplaceAllString(name, "")) {
			t.Errorf("%s is named, and the program does not have it", name)
		}
	}
	if len(named) < 30 {
		t.Errorf("only %d metrics are named", len(named))
	}
	tool, err := exec.LookPath("promtool")
	if err != nil {
		return
	}
	if out, err := exec.Command(tool, "check", "rules", filepath.Join(observe, "alerts.yaml")).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	asked := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(asked, asking(t, board), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "check", "rules", asked).CombinedOutput(); err != nil {
		t.Errorf("what the dashboard asks: promtool: %v\n%s", err, out)
	}
	lint := exec.Command(tool, "check", "metrics")
	lint.Stdin = strings.NewReader(text)
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// asking makes rules of what the dashboard asks, for promtool to read.
func asking(t *testing.T, board []byte) []byte {
	t.Helper()
	var d struct {
		Panels []struct {
			ID      int
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(board, &d); err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range d.Panels {
		for i, target := range p.Targets {
			rules = append(rules, rule{fmt.Sprintf("panel_%d_%d", p.ID, i), strings.NewReplacer("$__rate_interval", "5m", "$__interval", "1m", "$__range", "1h").Replace(target.Expr)})
		}
	}
	if len(rules) < 15 {
		t.Errorf("the dashboard asks %d questions", len(rules))
	}
	b, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}}) // YAML takes it
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var dashboard = flag.Bool("dashboard", false, "hold the dashboard against the schema that Grafana publishes (built from the network)")

// TestDashboardSchema holds the dashboard against Grafana's schema, and sees one fail
// that does not conform.
func TestDashboardSchema(t *testing.T) {
	if !*dashboard {
		t.Skip("-dashboard builds what reads it")
	}
	board, err := filepath.Abs(filepath.Join("..", "..", "docs", "observe", "grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(board)
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.json")
	if err := os.WriteFile(wrong, []byte(strings.Replace(string(b), `"showLegend": true`, `"showLegend": "yes"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, fits := range map[string]bool{board: true, wrong: false} {
		cmd := exec.Command("go", "run", ".", name)
		cmd.Dir = filepath.Join("testdata", "dashboard")
		if out, err := cmd.CombinedOutput(); (err == nil) != fits {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func families(text string) []string {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) `).FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	return names
}

// TestSinkFigures names each sink.
func TestSinkFigures(t *testing.T) {
	text := exported(t)
	for _, line := range []string{`chaperone_sink_behind_lines{sink="none"}`, `chaperone_sink_lost_lines{sink="none"} 0`, `chaperone_alarms_total{kind="log_altered"} 1`,
		`chaperone_sessions{state="open"} 0`, "chaperone_ready 0", "chaperone_log_failed 0", "chaperone_log_lines_total"} {
		if !strings.Contains(text, line) {
			t.Errorf("%s is missing", line)
		}
	}
}
