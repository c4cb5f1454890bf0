package main

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 24, 15, 30, 0, 0, time.Local) // a Tuesday
	day := func(m time.Month, d int) time.Time { return time.Date(2026, m, d, 0, 0, 0, 0, time.Local) }
	for text, want := range map[string]time.Time{
		"2h": now.Add(-2 * time.Hour), "90m ago": now.Add(-90 * time.Minute), "3d": now.AddDate(0, 0, -3), "2 weeks ago": now.AddDate(0, 0, -14),
		"today": day(11, 24), "yesterday": day(11, 23), "Monday": day(11, 23), "tue": day(11, 24), "wednesday": day(11, 18),
		"14 March": day(3, 14), "March 14": day(3, 14), "14th March": day(3, 14), "14 Mar 2026": day(3, 14), "March 14, 2026": day(3, 14),
		"24 December": time.Date(2025, 12, 24, 0, 0, 0, 0, time.Local), "29 February": time.Date(2024, 2, 29, 0, 0, 0, 0, time.Local),
		"2026-03-14": day(3, 14), "14.3.2026": day(3, 14), "2026-03-14 09:00": day(3, 14).Add(9 * time.Hour), "14:30": day(11, 24).Add(14*time.Hour + 30*time.Minute),
		"2026-03-14T09:00:00Z": time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC), "": {},
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"soon", "03/14", "14", "31 February", "25:00", "99999999d"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q was taken for %v", text, got)
		}
	}
	if from, to, err := parseSpan("14 March", now); err != nil || to.Sub(from) < 23*time.Hour || to.Sub(from) > 25*time.Hour {
		t.Errorf("a day lasts from %v to %v, %v", from, to, err)
	}
}
