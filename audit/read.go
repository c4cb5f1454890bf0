package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"
)

// Event is one line of the log.
type Event struct {
	Time        time.Time       `json:"time"`
	ID          string          `json:"id"`
	Event       string          `json:"event"` // "decision", "outcome" or "alarm"
	Replica     string          `json:"replica"`
	Agent       EventAgent      `json:"agent"`
	Human       EventHuman      `json:"human"`
	Session     string          `json:"session"`
	Purpose     string          `json:"purpose"`
	Chain       []EventLink     `json:"chain"`
	Traceparent string          `json:"traceparent"`
	Action      EventAction     `json:"action"`
	Resource    map[string]any  `json:"resource"`
	Actions     json.RawMessage `json:"actions"`
	Request     EventRequest    `json:"request"`
	Decision    EventDecision   `json:"decision"`
	Credential  EventCredential `json:"credential"`
	Alarm       string          `json:"alarm"`
	What        string          `json:"what"` // of an alarm: what happened, in words
	Outcome     EventOutcome    `json:"outcome"`
	Seq         uint64          `json:"seq"`
	Prev        string          `json:"prev"`

	Raw []byte `json:"-"` // the line itself, without its newline
}

// IsAlarm reports whether the event is an alarm and not a decision that raised one.
func (e *Event) IsAlarm() bool { return e.Event == "alarm" }

// EventAgent is the agent of an event.
type EventAgent struct{ ID, Instance, Owner string }

// EventHuman is the human of an event.
type EventHuman struct{ Sub, Iss, Email string }

// Name is how people read the human: the e-mail address, else the subject.
func (h EventHuman) Name() string {
	if h.Email != "" {
		return h.Email
	}
	return h.Sub
}

// EventAction is the action of an event.
type EventAction struct{ ID, Service, Operation, Access, Unknown string }

// EventLink is one delegation of an event's chain.
type EventLink struct{ Session, Agent, Instance string }

// EventRequest is the request of an event.
type EventRequest struct {
	Method, Host, Path string
	Query              []string
	Protocol, Client   string
}

// EventDecision is the decision of an event.
type EventDecision struct {
	Result      string
	Reasons     []string
	Policy      string
	Obligations map[string]any
}

// EventCredential is the credential of an event, and the one beside it.
type EventCredential struct {
	ID, Handle, Session string
	Beside              struct{ ID, Handle string }
}

// EventOutcome is the outcome of an event.
type EventOutcome struct {
	Status        int
	BytesIn       int64 `json:"bytes_in"`
	BytesOut      int64 `json:"bytes_out"`
	TotalUS       int64 `json:"total_us"`
	UpstreamUS    int64 `json:"upstream_us"`
	AddedUS       int64 `json:"added_us"`
	Error         string
	Scrubbed      int
	Unsearched    string
	Indeterminate bool
	Renewed       bool
}

// ResourceID is the id of the event's resource, or empty.
func (e *Event) ResourceID() string {
	id, _ := e.Resource["id"].(string)
	return id
}

// Exchange is the two events of one request; Outcome is nil while it goes on, or
// when the process ended before it was written.
type Exchange struct{ Decision, Outcome *Event }

// Parse reads one line.
func Parse(line []byte) (*Event, error) {
	e := new(Event)
	if err := json.Unmarshal(line, e); err != nil {
		return nil, fmt.Errorf("reading a line of the log: %w", err)
	}
	if e.ID == "" || e.Event == "" {
		return nil, errors.New("reading a line of the log: it is no event")
	}
	e.Raw = append([]byte(nil), line...)
	return e, nil
}

// Exchanges yields what the log at path holds, oldest first, over all segments,
// each decision with its outcome where that is at most maxOpen requests away.
// A line that cannot be read ends the sequence with an error.
func Exchanges(path string, f Filter) iter.Seq2[Exchange, error] {
	return func(yield func(Exchange, error) bool) {
		p := pairs{filter: f, yield: yield}
		for e, err := range Events(path) {
			if err != nil {
				p.rest()
				if !p.stopped {
					yield(Exchange{}, err)
				}
				return
			}
			if p.add(e); p.stopped {
				return
			}
		}
		p.rest()
	}
}

// maxOpen bounds the exchanges that wait for their outcome.
const maxOpen = 10000

// pairs joins decisions and outcomes in the order of the decisions.
type pairs struct {
	filter  Filter
	yield   func(Exchange, error) bool
	open    []*Exchange
	byID    map[string]*Exchange
	asEnded bool // in the order of the outcomes: a long stream holds nothing up
	stopped bool
}

func (p *pairs) add(e *Event) {
	if p.byID == nil {
		p.byID = map[string]*Exchange{}
	}
	if e.Event != "decision" {
		p.addOther(e)
		return
	}
	if !p.filter.Match(e) {
		return
	}
	x := &Exchange{Decision: e}
	p.open = append(p.open, x)
	p.byID[e.ID] = x
	p.emit(len(p.open) > maxOpen)
}

// addOther adds an outcome, or an alarm that belongs to no request.
func (p *pairs) addOther(e *Event) {
	switch x := p.byID[e.ID]; {
	case e.IsAlarm() && x != nil: // raised after the decision was written
		x.Decision.Alarm = e.Alarm
	case e.IsAlarm() && e.Request.Method == "" && p.filter.Match(e):
		x = &Exchange{Decision: e}
		if p.asEnded {
			p.give(x)
			return
		}
		p.open = append(p.open, x)
		p.emit(false)
	case e.Event == "outcome" && x != nil:
		x.Outcome = e
		if p.asEnded {
			p.ended(x)
			return
		}
		p.emit(false)
	}
}

// ended yields x, wherever it stands.
func (p *pairs) ended(x *Exchange) {
	p.open = slices.DeleteFunc(p.open, func(o *Exchange) bool { return o == x })
	delete(p.byID, x.Decision.ID)
	p.give(x)
}

// give yields x if its outcome is what the filter wants.
func (p *pairs) give(x *Exchange) {
	if p.filter.MatchOutcome(x.Outcome) {
		p.stopped = !p.yield(*x, nil)
	}
}

// emit yields from the front what is complete, or the first in any case.
func (p *pairs) emit(force bool) {
	for len(p.open) > 0 && !p.stopped && (force || p.open[0].Outcome != nil || p.open[0].Decision.IsAlarm()) {
		x := p.open[0]
		p.open = p.open[1:]
		delete(p.byID, x.Decision.ID)
		p.give(x)
		force = false
	}
}

func (p *pairs) rest() {
	for len(p.open) > 0 && !p.stopped {
		p.emit(true)
	}
}

// Lines yields every line of the log at path as it stands, over all segments. It is
// good until the next one. A half-written last line is passed over.
func Lines(path string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		done := ""
		for done != path {
			f, err := openNext(path, done)
			if err != nil {
				yield(nil, err)
			}
			if err != nil || f == nil {
				return
			}
			more := true
			for line, err := range scan(f.From(0)) {
				if more = yield(line, err) && err == nil; !more {
					break
				}
			}
			done = f.Name()
			f.Close()
			if !more {
				return
			}
		}
	}
}

// Events yields every line of the log at path as an event, over all segments. A
// half-written last line is passed over.
func Events(path string) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		done := ""
		for {
			f, err := openNext(path, done)
			if err != nil || f == nil {
				if err != nil {
					yield(nil, err)
				}
				return
			}
			more := events(f, yield)
			done = f.Name()
			f.Close()
			if !more || done == path {
				return
			}
		}
	}
}

// events yields the events of one segment and reports whether more are wanted.
func events(f *Segment, yield func(*Event, error) bool) bool {
	for line, err := range scan(f.From(0)) {
		var e *Event
		if err == nil {
			e, err = Parse(line)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", f.Name(), err)
		}
		if !yield(e, err) || err != nil {
			return false
		}
	}
	return true
}

// openNext opens the segment that follows done, the current one last, or returns
// nil where there is none. It looks twice, so that a log which is rotated meanwhile
// loses no segment to the reader.
func openNext(path, done string) (*Segment, error) {
	for {
		name, err := segmentAfter(path, done)
		if err != nil || name == "" {
			return nil, err
		}
		f, err := OpenSegment(name)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue // renamed, packed or pruned since
			}
			return nil, err
		}
		if again, err := segmentAfter(path, done); err != nil || Stem(again) == Stem(name) {
			return f, err
		}
		f.Close()
	}
}

func segmentAfter(path, done string) (string, error) {
	segments, err := Segments(path)
	for _, name := range segments {
		if name == path || Stem(name) > Stem(done) {
			return name, err
		}
	}
	return "", err
}

// lines yields the whole lines of a file without their newlines.
func lines(name string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		f, err := OpenSegment(name)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		scan(f.From(0))(yield)
	}
}

// scan yields the whole lines that f still holds.
func scan(f io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		r := bufio.NewReaderSize(f, 64<<10)
		for {
			line, err := readLine(r)
			if err == io.EOF {
				return
			}
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// readLine returns a line without its newline; one without a newline is io.EOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	var long []byte
	for {
		b, err := r.ReadSlice('\n')
		if err == nil {
			b = b[:len(b)-1]
			if long != nil {
				b = append(long, b...)
			}
			return b, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
		long = append(long, b...)
	}
}
