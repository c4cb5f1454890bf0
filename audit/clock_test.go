package audit

import (
	"errors"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// TestDatedByAnotherClock dates records by a clock that is ahead, or behind, of the
// machine's; how long they took is the machine's.
func TestDatedByAnotherClock(t *testing.T) {
	for _, ahead := range []time.Duration{5 * time.Second, -5 * time.Second} {
		l := open(t, Options{Now: func() time.Time { return noon }, Ahead: func() time.Duration { return ahead }})
		r := l.Open(noon)
		r.Outcome.Total = time.Second
		if err := errors.Join(r.Commit(), r.Close(), l.Raise(Alarm{Kind: "log_altered"}), l.Close()); err != nil {
			t.Fatal(err)
		}
		want := map[string]time.Time{"decision": noon.Add(ahead), "outcome": noon.Add(ahead + time.Second), "alarm": noon.Add(ahead)}
		for e, err := range Events(l.o.Path) {
			if err != nil {
				t.Fatal(err)
			}
			if !e.Time.Equal(want[e.Event].Truncate(time.Microsecond)) {
				t.Errorf("%v ahead: %s at %v, want %v", ahead, e.Event, e.Time, want[e.Event])
			}
			if id, err := ulid.Parse(e.ID); err != nil || id.Timestamp().Sub(noon.Add(ahead)).Abs() >= time.Millisecond {
				t.Errorf("%v ahead: the id is of %v, %v", ahead, id.Timestamp(), err)
			}
			delete(want, e.Event)
		}
		if len(want) > 0 {
			t.Errorf("%v ahead: no %v", ahead, want)
		}
	}
}
