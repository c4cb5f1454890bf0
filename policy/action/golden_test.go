package action

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"chaperone/policy"
)

// golden is one case of testdata/golden: a request, and what it is. The README
// there has the format.
type golden struct {
	where string // file:line
	r     Request
	want  []string
}

// requestLine begins a case.
var requestLine = regexp.MustCompile(`^([A-Z]+) https://([^/?\s]+)(/[^?\s]*)?(?:\?(\S*))?$`)

// readGolden reads one file of cases.
func readGolden(t testing.TB, file string) []*golden {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []*golden
	var now *golden
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		where := fmt.Sprintf("%s:%d", filepath.Base(file), n)
		line := lines.Text()
		first, want, same := strings.Cut(line, " => ")
		if m := requestLine.FindStringSubmatch(first); m != nil {
			now = &golden{where: where, r: Request{Method: m[1], Host: m[2], Path: m[3], RawQuery: m[4], Header: http.Header{}}}
			list = append(list, now)
			if same {
				now.want = []string{want}
			}
			continue
		}
		if line == "" || line[0] == '#' {
			continue
		}
		if now == nil || !now.add(line) {
			t.Fatalf("%s: %q is no request, field, body or outcome", where, line)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return list
}

// add reads another line of a case.
func (g *golden) add(line string) bool {
	if want, ok := strings.CutPrefix(line, "=> "); ok {
		g.want = append(g.want, want)
		return true
	}
	if text, ok := strings.CutPrefix(line, "|"); ok {
		if g.r.Body != nil {
			g.r.Body = append(g.r.Body, '\n')
		}
		g.r.Body = append(g.r.Body, strings.TrimPrefix(text, " ")...)
		return true
	}
	if quoted, ok := strings.CutPrefix(line, "~ "); ok {
		s, err := strconv.Unquote(quoted)
		g.r.Body = append(g.r.Body, s...)
		return err == nil
	}
	name, value, ok := strings.Cut(line, ":")
	g.r.Header.Add(name, strings.TrimSpace(value))
	return ok && !strings.Contains(name, " ")
}

// outcome is what a catalogue makes of a request, line by line as in the files. The
// body is shown to it as the proxy does: as much as it asks for.
func outcome(c *Catalogue, r *Request) []string {
	one := *r
	switch n := c.NeedsBody(&one); {
	case r.Body == nil:
		one.BodyState = policy.BodyAbsent
	case n == 0:
		one.Body, one.BodyState = nil, policy.BodyUnread
	case len(r.Body) > n:
		one.Body, one.BodyState = r.Body[:n], policy.BodyTruncated
	default:
		one.BodyState = policy.BodyParsed
	}
	var q policy.Question
	if err := c.Classify(&one, &q); err != nil {
		return []string{"unclear: " + err.Error()}
	}
	acts := q.Actions
	if len(acts) == 0 {
		acts = []policy.Act{{Action: q.Action, Resource: q.Resource}}
	}
	var out []string
	for _, a := range acts {
		if !a.Action.Known {
			return []string{"? " + a.Action.Why}
		}
		var line strings.Builder
		line.WriteString(a.Action.ID + " " + string(a.Action.Access))
		if a.Resource.ID != "" {
			line.WriteString(" on " + a.Resource.Type + " " + a.Resource.ID)
		}
		for i, p := range a.Resource.Params {
			if i == 0 {
				line.WriteString(" with")
			}
			line.WriteString(" " + p.Name + "=" + p.Value)
		}
		out = append(out, line.String())
	}
	return out
}

// wanted reports whether a line of an outcome is what a case says: all of it, or
// all but the parameters, or an error that has its words.
func wanted(got, want string) bool {
	if words, ok := strings.CutPrefix(want, "unclear"); ok {
		return strings.HasPrefix(got, "unclear: ") && strings.Contains(got, strings.TrimPrefix(words, ": "))
	}
	if !strings.Contains(want, " with ") {
		got, _, _ = strings.Cut(got, " with ")
	}
	return got == want
}

// TestGolden is what people would expect of requests from the vendors' own examples,
// with the near misses that must not match.
func TestGolden(t *testing.T) {
	c := protocols(t)
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	cases, misses := map[string]int{}, map[string]int{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) {
			for _, g := range readGolden(t, file) {
				got := outcome(c, &g.r)
				same := len(got) == len(g.want)
				for i := 0; same && i < len(got); i++ {
					same = wanted(got[i], g.want[i])
				}
				if !same {
					t.Errorf("%s: %s https://%s%s\n got %s\nwant %s", g.where, g.r.Method, g.r.Host, g.r.Path, strings.Join(got, "\n     "), strings.Join(g.want, "\n     "))
				}
				cases[name]++
				if len(g.want) > 0 && !strings.Contains(g.want[0], ":") || strings.HasPrefix(g.want[0], "unclear") {
					misses[name]++
				}
			}
		})
	}
	for _, s := range shippedCatalogue(t).Services() {
		if cases[s.Name] < 20 || misses[s.Name] < 3 {
			t.Errorf("testdata/golden/%s.txt has %d cases with %d near misses; at least 20 and 3 are wanted of each service", s.Name, cases[s.Name], misses[s.Name])
		}
	}
}

// TestUnknownIsOutOfReach shows that what has no name can be granted by none, and that
// every reason for it is explained.
func TestUnknownIsOutOfReach(t *testing.T) {
	c := protocols(t)
	files, _ := filepath.Glob("testdata/golden/*.txt")
	for _, file := range files {
		for _, g := range readGolden(t, file) {
			r := g.r
			r.BodyState = policy.BodyUnread
			if len(bytes.TrimSpace(r.Body)) == 0 {
				r.BodyState = policy.BodyAbsent
			}
			var q policy.Question
			if c.Classify(&r, &q) != nil || q.Action.Known {
				continue
			}
			if a := q.Action; a.ID != "" || len(a.Keys) > 0 || a.Access != policy.AccessUnknown || reasons[a.Why][0] == "" || reasons[a.Why][1] == "" || len(q.Actions) > 0 {
				t.Errorf("%s: %+v, %d more", g.where, a, len(q.Actions))
			}
		}
	}
}
