package proxy

import (
	"sync"
	"time"

	"chaperone/policy"
)

// Kinds of alarms that would come with every request for as long as their cause lasts.
// Each is raised at most once a minute for one session; the records tell the rest.
const (
	alarmLimit  = "limit_exceeded"
	alarmShadow = "shadow_flip"
)

const (
	alarmPause = time.Minute
	maxPauses  = 10000 // sessions that are remembered
)

// pauses remembers when an alarm was raised last. The zero value is ready.
type pauses struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// due reports whether an alarm of a kind may be raised for a session, and notes that
// it is.
func (p *pauses) due(kind, session string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := kind + " " + session
	if now.Sub(p.last[key]) < alarmPause {
		return false
	}
	if p.last == nil || len(p.last) >= maxPauses {
		p.last = map[string]time.Time{}
	}
	p.last[key] = now
	return true
}

// raise sets the alarms of a request that has ended which are not those of its error.
func (x *exchange) raise() {
	rec := &x.rec
	if rec.Alarm != "" {
		return
	}
	kind := ""
	switch s := rec.Decision.Shadow; {
	case rec.Outcome.Error == alarmLimit:
		kind = alarmLimit
	case s != nil && s.Result != rec.Decision.Result && s.Result != policy.Ask:
		kind = alarmShadow
	}
	if kind != "" && x.s.pauses.due(kind, rec.Session, rec.Arrived) {
		rec.Alarm = kind
	}
}
