package index

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"chaperone/audit"
)

// test is one column of a filter: the codes that it takes.
type test struct {
	codes []uint32
	takes []bool
	more  *test // or in this column
	loose bool  // what stands in a request that is several may match besides
}

func (t *test) match(row int) bool {
	return t.takes[t.codes[row]] || t.more != nil && t.more.match(row)
}

func (t *test) any() bool {
	return slices.Contains(t.takes, true) || t.more != nil && t.more.any()
}

// tests makes the filter's tests of one part. It reports false where no row can match.
func (w *searcher) tests(p *Part) ([]test, bool) {
	several := p.Several
	var tests []test
	for _, want := range w.wants {
		var t *test
		for _, i := range columnsOf(want) {
			c := p.columns[i]
			pattern := want.Pattern
			if want.Field == "result" && pattern == "alarm" {
				pattern = "*"
			}
			takes := make([]bool, len(c.texts))
			for code, text := range c.texts {
				takes[code] = audit.Matches(pattern, text)
			}
			t = &test{codes: c.codes, takes: takes, more: t, loose: isLoose([]int{i})}
		}
		if t == nil {
			continue
		}
		if !t.any() && !(t.loose && several) && !want.OfOutcome() {
			return nil, false
		}
		tests = append(tests, *t)
	}
	return tests, true
}

// sift goes through the rows of a part.
func (w *searcher) sift(f *found, p *Part, s *audit.Segment) error {
	since, until := int64(-1<<62), int64(1<<62)
	if t := w.q.Filter.Since; !t.IsZero() {
		since = t.UnixMicro()
	}
	if t := w.q.Filter.Until; !t.IsZero() {
		until = t.UnixMicro()
	}
	tests, possible := w.tests(p)
	if !possible || p.Rows == 0 || p.Until < since || p.Since >= until {
		return nil
	}
	count := newCounter(w.q.Group, p)
	raw := w.raw()
	open := w.ofOutcome()
	for row := range p.Rows {
		if p.times[row] < since || p.times[row] >= until {
			continue
		}
		later := open && p.ended[row] < 0 // its outcome is in another part
		sure, ok := judge(tests, row, p.multi != nil && p.multi[row])
		if !ok && !later {
			continue
		}
		ok, err := w.confirm(s, p, row, sure && !raw && !later)
		if err != nil {
			return err
		}
		switch {
		case !ok:
		case w.q.Group == nil || later:
			f.hits = append(f.hits, hit{p.at[row], p.ended[row]})
		default:
			count.row(row)
		}
	}
	f.groups = count.groups()
	return nil
}

// judge applies the tests to a row. It is not sure of one that is several.
func judge(tests []test, row int, multi bool) (sure, ok bool) {
	sure = true
	for i := range tests {
		if tests[i].match(row) {
			continue
		}
		if !tests[i].loose || !multi {
			return true, false
		}
		sure = false
	}
	return sure, true
}

// ofOutcome reports whether the query looks at outcomes.
func (w *searcher) ofOutcome() bool {
	return slices.ContainsFunc(w.wants, audit.Want.OfOutcome) ||
		slices.ContainsFunc(w.q.Group, func(name string) bool { return audit.Want{Field: name}.OfOutcome() })
}

// confirm reads the lines of a row, where its columns do not suffice, and applies the
// whole filter. Of an outcome that is in another part who joins the parts decides.
func (w *searcher) confirm(s *audit.Segment, p *Part, row int, sure bool) (bool, error) {
	if sure {
		return true, nil
	}
	x, err := read(s, p.at[row], p.ended[row])
	if err != nil {
		return false, err
	}
	f := &w.q.Filter
	return f.Match(x.Decision) && (p.ended[row] < 0 || f.MatchOutcome(x.Outcome)), nil
}

// read reads the lines of an exchange.
func read(s *audit.Segment, at, ended int64) (x audit.Exchange, err error) {
	for _, part := range [...]struct {
		at int64
		to **audit.Event
	}{{at, &x.Decision}, {ended, &x.Outcome}} {
		if part.at < 0 {
			continue
		}
		line, err := s.Line(part.at)
		if err != nil {
			return x, fmt.Errorf("reading %s at byte %d: %w", s.Name(), part.at, err)
		}
		if *part.to, err = audit.Parse(line); err != nil {
			return x, fmt.Errorf("%s at byte %d: %w", s.Name(), part.at, err)
		}
	}
	return x, nil
}

// counter counts the rows of one part by group. While it counts, a group is known
// by the codes of its columns.
type counter struct {
	p     *Part
	keys  []func(row int) uint32
	texts []func(code uint32) string
	all   map[string]*tally
	key   []byte
	last  *tally
	was   []byte
}

type tally struct {
	Group
	first, last int64
}

func newCounter(group []string, p *Part) *counter {
	c := &counter{p: p, all: map[string]*tally{}}
	for _, name := range group {
		if i := slices.Index(columnNames[:], name); i >= 0 {
			col := p.columns[i]
			c.keys = append(c.keys, func(row int) uint32 { return col.codes[row] })
			c.texts = append(c.texts, func(code uint32) string { return col.texts[code] })
			continue
		}
		c.clock(name)
	}
	return c
}

// clock groups by quarters of an hour since 1970, of which days and hours of all
// zones are made.
func (c *counter) clock(name string) {
	layout := dayForm
	if name == "hour" {
		layout = hourForm
	}
	c.keys = append(c.keys, func(row int) uint32 { return uint32(c.p.times[row] / 900_000_000) })
	c.texts = append(c.texts, func(code uint32) string {
		return time.UnixMicro(int64(code) * 900_000_000).Format(layout)
	})
}

func (c *counter) row(row int) {
	c.key = c.key[:0]
	for _, k := range c.keys {
		c.key = binary.LittleEndian.AppendUint32(c.key, k(row))
	}
	t := c.last
	if t == nil || string(c.key) != string(c.was) {
		if t = c.all[string(c.key)]; t == nil {
			t = &tally{first: c.p.times[row], last: c.p.times[row]}
			c.all[string(c.key)] = t
		}
		c.last, c.was = t, append(c.was[:0], c.key...)
	}
	t.Count++
	t.first, t.last = min(t.first, c.p.times[row]), max(t.last, c.p.times[row])
	results := c.p.columns[resultColumn]
	switch results.texts[results.codes[row]] {
	case "allow":
		t.Allowed++
	case "deny":
		t.Denied++
	case "ask":
		t.Asked++
	}
	if c.p.columns[alarmColumn].codes[row] != 0 {
		t.Alarms++
	}
}

// groups gives the groups by their texts.
func (c *counter) groups() map[string]*Group {
	all := map[string]*Group{}
	for key, t := range c.all {
		g := t.Group
		for i, text := range c.texts {
			g.Key = append(g.Key, text(binary.LittleEndian.Uint32([]byte(key)[4*i:])))
		}
		g.First, g.Last = time.UnixMicro(t.first), time.UnixMicro(t.last)
		name := joined(g.Key)
		if old := all[name]; old != nil { // two quarters of one day
			old.add(&g)
			continue
		}
		all[name] = &g
	}
	return all
}

// joined makes one text of several, no two alike.
func joined(texts []string) string {
	var b strings.Builder
	for _, t := range texts {
		b.WriteString(strconv.Itoa(len(t)))
		b.WriteByte(':')
		b.WriteString(t)
	}
	return b.String()
}
