package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Layout says how a line is laid out for people.
type Layout struct {
	Width   int  // of the terminal, in columns; 0: lines are never cut
	Colour  bool // for a terminal that has it
	Dates   bool // the day stands before the time
	Replica bool // several have written: whose line it is, where there is room
	IDs     bool // the id stands behind the time
}

// widths are those of the columns; 0 leaves one out.
type widths struct{ replica, who, human, what int }

// replicaWidth is that of a replica's id.
const replicaWidth = 10

// columns chooses what a terminal has room for.
func (l Layout) columns() widths {
	switch {
	case l.Width == 0 || l.Width >= 150:
		return widths{l.replica(), 24, 20, 40}
	case l.Width >= 110:
		return widths{l.replica(), 16, 16, 34}
	case l.Width >= 76: // 80 less what others put before a line
		return widths{0, 12, 0, 30}
	}
	return widths{0, 0, 0, max(l.Width-22, 10)}
}

func (l Layout) replica() int {
	if l.Replica {
		return replicaWidth
	}
	return 0
}

// Line is the exchange in one line: when, what was decided, who for whom, what on
// what, and how it ended, with the reason where it was refused. What does not fit is
// cut, and nothing in it can make a terminal do more than print.
func (x Exchange) Line(l Layout) string {
	d := x.Decision
	clock, w := "15:04:05.000", l.columns()
	if w.human == 0 {
		clock = "15:04:05"
	}
	if l.Dates {
		clock = "2006-01-02 15:04:05"
	}
	result := d.Decision.Result
	if d.Alarm != "" {
		result = "ALARM"
	}
	cells := []string{d.Time.Local().Format(clock), paint(result, fmt.Sprintf("%-5s", result), l.Colour)}
	room := l.Width - len(clock) - 9
	if l.IDs {
		cells = slices.Insert(cells, 1, d.ID)
		room -= len(d.ID) + 2
	}
	for _, c := range []struct {
		text, short string
		width       int
	}{{orDash(d.Replica), "", w.replica}, {x.who(), d.Agent.ID, w.who}, {orDash(d.Human.Name()), "", w.human}, {x.what(), x.briefly(w.what), w.what}} {
		if c.width > 0 {
			cells = append(cells, l.cell(c.text, c.short, c.width))
			room -= c.width + 2
		}
	}
	end := Printable(x.end(true))
	if l.Width > 0 && utf8.RuneCountInString(end) > room {
		end = cut(Printable(x.end(false)), max(room, 0))
	}
	return strings.TrimRight(strings.Join(append(cells, end), "  "), " ")
}

// cell fills a column, and where lines are cut keeps to it: by what says the same in
// short, where there is one.
func (l Layout) cell(text, short string, width int) string {
	text = Printable(text)
	if l.Width > 0 && utf8.RuneCountInString(text) > width {
		text = cut(cmp.Or(Printable(short), text), width)
	}
	return text + strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 0))
}

func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return string([]rune(text)[:width-1]) + "…"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (x Exchange) who() string {
	a := x.Decision.Agent
	switch {
	case x.Decision.IsAlarm() && a.ID == "":
		return "chaperone"
	case a.ID == "":
		return "(unknown caller)"
	case a.Instance != "":
		return a.ID + "/" + a.Instance
	}
	return a.ID
}

func (x Exchange) what() string {
	d := x.Decision
	if d.IsAlarm() {
		return d.Alarm
	}
	if d.Action.ID == "" {
		return strings.TrimSpace(d.Request.Method + " " + d.Request.Host + d.Request.Path)
	}
	return strings.TrimSpace(d.Action.ID + " " + d.ResourceID())
}

// briefly says what was done on what in so many columns: the action is cut for the sake
// of the resource, which is what people look for.
func (x Exchange) briefly(width int) string {
	action, on := x.Decision.Action.ID, x.Decision.ResourceID()
	left := width - 1 - utf8.RuneCountInString(on)
	if action == "" || on == "" || left < 12 {
		return x.what()
	}
	return cut(action, left) + " " + on
}

// end says how the exchange ended; whole: also of an allow what the proxy added.
func (x Exchange) end(whole bool) string {
	d, o := x.Decision, x.Outcome
	var parts []string
	if d.IsAlarm() {
		return d.What
	}
	if d.Alarm != "" {
		parts = append(parts, d.Alarm)
	}
	if o == nil {
		parts = append(parts, "(no outcome yet)")
	} else {
		if o.Outcome.Status != 0 {
			parts = append(parts, fmt.Sprint(o.Outcome.Status))
		}
		if d.Decision.Result == "allow" && whole {
			parts = append(parts, fmt.Sprintf("%s (+%s)", short(o.Outcome.TotalUS), short(o.Outcome.AddedUS)))
		} else if d.Decision.Result == "allow" {
			parts = append(parts, short(o.Outcome.TotalUS))
		}
		said := d.Decision.Result != "allow" && len(d.Decision.Reasons) > 0 && o.Outcome.Error == "denied" // better by the reason
		if o.Outcome.Error != "" && o.Outcome.Error != d.Alarm && !said {
			parts = append(parts, o.Outcome.Error)
		}
		if o.Outcome.Indeterminate {
			parts = append(parts, "INDETERMINATE: the write may have happened")
		}
	}
	if d.Decision.Result != "allow" && len(d.Decision.Reasons) > 0 {
		parts = append(parts, strings.Join(d.Decision.Reasons, " "))
	}
	return strings.Join(parts, "  ")
}

// short writes microseconds as people say them.
func short(us int64) string {
	d := time.Duration(us) * time.Microsecond
	switch {
	case d < time.Millisecond:
		return d.String()
	case d < time.Second:
		return fmt.Sprintf("%.1fms", float64(us)/1000)
	}
	return d.Round(10 * time.Millisecond).String()
}

// Printable replaces what could make a terminal do more than print.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) { // controls, also those that turn the direction of text
			return '·'
		}
		return r
	}, s)
}

// paint colours a result.
func paint(result, text string, colour bool) string {
	if !colour {
		return text
	}
	code := "32" // green
	switch result {
	case "ALARM":
		code = "1;31"
	case "deny":
		code = "31"
	case "ask":
		code = "33"
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
