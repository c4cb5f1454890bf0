package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"chaperone/cmd/chaperone/problem"
)

// timeForms are how people write a moment or a day, besides how long ago it is.
var timeForms = [...]string{
	time.RFC3339Nano, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04",
	time.DateOnly, "2 January 2006", "2 Jan 2006", "January 2 2006", "Jan 2 2006", "2.1.2006", "2006/01/02",
}

// yearless are days without a year: the last such day that has come.
var yearless = [...]string{"2 January", "2 Jan", "January 2", "Jan 2"}

// clocks are times of today.
var clocks = [...]string{"15:04:05", "15:04"}

var ago = regexp.MustCompile(`^(\d+)\s*(d|days?|w|weeks?|h|hours?|m|min|minutes?)(?:\s+ago)?$`)

// parseTime reads a moment, a local day, or how long ago; nothing is the zero time.
func parseTime(text string, now time.Time) (time.Time, error) {
	t, _, err := parseSpan(text, now)
	return t, err
}

// parseSpan reads what people write for a time, and says when what it names ends: a
// day lasts till the next, a moment no time.
func parseSpan(text string, now time.Time) (from, to time.Time, err error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return from, to, nil
	}
	if d, err := time.ParseDuration(strings.TrimSuffix(text, " ago")); err == nil {
		return now.Add(-d.Abs()), now.Add(-d.Abs()), nil
	}
	if t, ok := parseAgo(text, now); ok {
		return t, t, nil
	}
	if day, ok := parseDay(text, now); ok {
		return day, day.AddDate(0, 0, 1), nil
	}
	plain := ordinals.ReplaceAllString(strings.ReplaceAll(text, ",", ""), "$1")
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, plain, time.Local); err == nil {
			if !strings.Contains(form, "15") {
				return t, t.AddDate(0, 0, 1), nil
			}
			return t, t, nil
		}
	}
	for _, form := range yearless {
		if t, ok := lastSuch(form, plain, now); ok {
			return t, t.AddDate(0, 0, 1), nil
		}
	}
	for _, form := range clocks {
		if t, err := time.ParseInLocation(form, plain, time.Local); err == nil {
			y, m, d := now.Date()
			t = time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, time.Local)
			return t, t, nil
		}
	}
	return from, to, problem.Misuse(fmt.Sprintf("time %q is not understood", text),
		"write 2h (ago), 3d, yesterday, monday, 14:30, 14 March, 2026-03-14, or 2026-03-14T09:00:00Z")
}

var ordinals = regexp.MustCompile(`\b(\d{1,2})(?:st|nd|rd|th)\b`)

// parseAgo reads how many days, weeks, hours or minutes ago.
func parseAgo(text string, now time.Time) (time.Time, bool) {
	m := ago.FindStringSubmatch(text)
	if m == nil {
		return now, false
	}
	n, err := strconv.Atoi(m[1])
	if err != nil || n > 1e6 {
		return now, false
	}
	switch m[2][0] {
	case 'd':
		return now.AddDate(0, 0, -n), true
	case 'w':
		return now.AddDate(0, 0, -7*n), true
	case 'h':
		return now.Add(-time.Duration(n) * time.Hour), true
	}
	return now.Add(-time.Duration(n) * time.Minute), true
}

// parseDay reads today, yesterday and the days of the week.
func parseDay(text string, now time.Time) (time.Time, bool) {
	y, m, d := now.Local().Date()
	today := time.Date(y, m, d, 0, 0, 0, 0, time.Local)
	switch word := strings.ToLower(text); word {
	case "now":
		return now, true
	case "today":
		return today, true
	case "yesterday":
		return today.AddDate(0, 0, -1), true
	default:
		for back := range 7 {
			day := today.AddDate(0, 0, -back)
			if name := strings.ToLower(day.Weekday().String()); word == name || word == name[:3] {
				return day, true
			}
		}
	}
	return now, false
}

// lastSuch is the last day of that name that has come.
func lastSuch(form, text string, now time.Time) (time.Time, bool) {
	for back := range 8 { // 29 February comes every eight years at the least
		year := now.Local().Year() - back
		t, err := time.ParseInLocation(form+" 2006", text+" "+strconv.Itoa(year), time.Local)
		if err == nil && !t.After(now) {
			return t, true
		}
	}
	return now, false
}
