package audit

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Line is the exchange in one line for people: when, what was decided, who for
// whom, what on what, and how it ended. Width cuts it (0: never); colour marks the
// result for a terminal.
func (x Exchange) Line(width int, colour bool) string {
	d := x.Decision
	who := d.Agent.ID
	if who == "" {
		who = "(unknown caller)"
	}
	if d.Agent.Instance != "" {
		who += "/" + d.Agent.Instance
	}
	human := d.Human.Name()
	if human == "" {
		human = "-"
	}
	what := d.Action.ID
	if what == "" {
		what = strings.TrimSpace(d.Request.Method + " " + d.Request.Host + d.Request.Path)
	} else if id := d.ResourceID(); id != "" {
		what += " " + id
	}
	result := d.Decision.Result
	if d.Alarm != "" {
		result = "ALARM"
	}
	s := fmt.Sprintf("%s  %-5s  %-20s  %-24s  %-44s  %s", d.Time.Local().Format("15:04:05.000"), result, Printable(who), Printable(human), Printable(what), x.end())
	s = strings.TrimRight(s, " ")
	if width > 0 && utf8.RuneCountInString(s) > width {
		s = string([]rune(s)[:width-1]) + "…"
	}
	if colour {
		s = paint(result, s)
	}
	return s
}

// end says how the exchange ended.
func (x Exchange) end() string {
	d, o := x.Decision, x.Outcome
	var parts []string
	if o == nil {
		parts = append(parts, "(no outcome yet)")
	} else {
		if o.Outcome.Status != 0 {
			parts = append(parts, fmt.Sprint(o.Outcome.Status))
		}
		if d.Decision.Result == "allow" {
			parts = append(parts, fmt.Sprintf("%s (+%s)", short(o.Outcome.TotalUS), short(o.Outcome.AddedUS)))
		}
		if o.Outcome.Error != "" {
			parts = append(parts, o.Outcome.Error)
		}
		if o.Outcome.Indeterminate {
			parts = append(parts, "INDETERMINATE: the write may have happened")
		}
	}
	if d.Decision.Result != "allow" && len(d.Decision.Reasons) > 0 {
		parts = append(parts, Printable(d.Decision.Reasons[0]))
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

func paint(result, s string) string {
	code := "32" // green
	switch result {
	case "ALARM":
		code = "1;31"
	case "deny":
		code = "31"
	case "ask":
		code = "33"
	}
	before, after, ok := strings.Cut(s, result)
	if !ok {
		return s
	}
	return before + "\x1b[" + code + "m" + result + "\x1b[0m" + after
}
