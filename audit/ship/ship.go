// Package ship brings the decision log to what a company already runs: OCSF, OPA
// decision logs, OpenTelemetry, syslog and webhooks.
//
// The log itself is the spool. Each sink has a cursor on disk, reads behind the proxy,
// and tries again until what it sent was taken; no request waits for it. What it may
// fall behind is bounded by how much of the log is kept.
package ship

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"chaperone/audit"
)

// Item is one line of the log on its way out, masked.
type Item struct {
	Seq   uint64
	Line  []byte // without newline
	Event *audit.Event
	// Decision is that of an outcome, masked too; nil where it is too long ago.
	Decision *audit.Event
}

// Target takes items somewhere. An error means that the batch is to be sent again,
// whole: a target may get an item twice and must not lose one.
type Target interface {
	Send(ctx context.Context, batch []Item) error
	Close() error
}

// Options of a [Sink].
type Options struct {
	Name   string
	Path   string // of the log
	Cursor string // file that holds how far the sink has come
	Target Target
	// Events that are sent, of decision, outcome and alarm; empty: all.
	Events []string
	// Mask takes out of a line what must not leave; nil: nothing. A line that cannot be
	// masked is not sent, and those behind it wait.
	Mask func(ctx context.Context, line []byte) ([]byte, error)
	// Batch bounds the items of one sending; 200 when zero.
	Batch int
	// FromNow starts a sink that has no cursor at the log's end, not at its beginning.
	FromNow bool
	// Notice is told in words of a sink that fails, and that it works again.
	Notice func(message string)
	// Overtaken is told in words when lines were gone from the log before they were sent.
	Overtaken func(message string)
	// Every is how often the sink looks for new lines; 100 ms when zero.
	Every time.Duration
}

// Status is how a sink is doing.
type Status struct {
	Name    string    `json:"name"`
	Sent    uint64    `json:"sent"` // number of the last line that was taken
	Behind  uint64    `json:"behind"`
	Lost    uint64    `json:"lost"`             // lines that were gone before they were sent
	Error   string    `json:"error,omitzero"`   // why the last sending failed; empty: it did not
	Failing time.Time `json:"failing,omitzero"` // since when
}

// Sink sends the lines of a log to a target until it is closed.
type Sink struct {
	o      Options
	cancel context.CancelFunc
	done   sync.WaitGroup

	reader *audit.Reader
	at     cursor
	line   []byte                  // the last that was read, as it stands in the log
	open   map[string]*audit.Event // decisions whose outcome has not come
	order  []held
	sent   atomic.Uint64
	lost   atomic.Uint64
	failed atomic.Pointer[failure]
}

// held is a decision that waits for its outcome.
type held struct {
	id  string
	seq uint64
}

type failure struct {
	err   string
	since time.Time
}

// maxOpen bounds the decisions that a sink remembers until their outcome comes.
const maxOpen = 10000

// The first and the longest pause before a batch is sent again.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 30 * time.Second
)

// Start begins to send. It fails where the cursor cannot be read.
func Start(o Options) (*Sink, error) {
	if o.Batch == 0 {
		o.Batch = 200
	}
	if o.Every == 0 {
		o.Every = 100 * time.Millisecond
	}
	s := &Sink{o: o, open: map[string]*audit.Event{}}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("starting sink %s: %w", o.Name, err)
	}
	s.sent.Store(s.at.Seq)
	s.reader = audit.NewReader(o.Path, min(s.at.From, s.at.Seq))
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.done.Go(func() { s.run(ctx) })
	return s, nil
}

// Close sends what is there, for as long as ctx lasts, and ends.
func (s *Sink) Close(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.cancel)
	defer stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil && s.failed.Load() == nil && s.Status().Behind > 0 {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	s.cancel()
	s.done.Wait()
	f, ok := s.o.Target.(forgetful)
	listens := ok && f.Listening()
	err := s.o.Target.Close()
	if listens && err == nil && s.at.Seq > 0 {
		s.at.Clean = true
		err = s.save()
	}
	return err
}

// Status tells how the sink is doing. It reads the end of the log.
func (s *Sink) Status() Status {
	st := Status{Name: s.o.Name, Sent: s.sent.Load(), Lost: s.lost.Load()}
	if last, err := audit.LastNumber(s.o.Path); err == nil && last > st.Sent {
		st.Behind = last - st.Sent
	}
	if f := s.failed.Load(); f != nil {
		st.Error, st.Failing = f.err, f.since
	}
	return st
}

func (s *Sink) run(ctx context.Context) {
	defer s.reader.Close()
	tick := time.NewTicker(s.o.Every)
	defer tick.Stop()
	for ctx.Err() == nil {
		batch, last, more := s.collect(ctx)
		if last > s.at.Seq && !s.deliver(ctx, batch, last) {
			return
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// collect takes the next lines, and reports up to which line and whether there may be
// more at once.
func (s *Sink) collect(ctx context.Context) (batch []Item, last uint64, more bool) {
	last = s.at.Seq
	for len(batch) < s.o.Batch && ctx.Err() == nil {
		before := s.reader.Last()
		line, seq, err := s.reader.Next()
		if err == io.EOF {
			return batch, last, false
		}
		if err != nil { // a line that is no record: its number is passed over with the next
			s.fail(err)
			return batch, last, false
		}
		if seq > before+1 && seq > s.at.Seq+1 {
			s.overtaken(max(before, s.at.Seq), seq)
		}
		item, ok := s.prepare(ctx, line, seq)
		if !ok {
			return batch, last, false
		}
		if seq > s.at.Seq {
			last = seq
			s.line = append(s.line[:0], line...)
			if item != nil {
				batch = append(batch, *item)
			}
		}
	}
	return batch, last, true
}

// overtaken tells that lines were gone before they were sent.
func (s *Sink) overtaken(before, seq uint64) {
	s.lost.Add(seq - before - 1)
	s.o.Overtaken(fmt.Sprintf("sink %s: lines %d to %d were not in the log any more when they were to be sent", s.o.Name, before+1, seq-1))
}

// prepare masks and reads a line. It tries until it can or ctx is done: what cannot be
// masked must not leave, nor be left out. It returns nil where the line is not wanted.
func (s *Sink) prepare(ctx context.Context, line []byte, seq uint64) (*Item, bool) {
	line = bytes.Clone(line)
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		item, err := s.read(ctx, line, seq)
		if err == nil {
			return item, true
		}
		s.fail(err)
		if !wait(ctx, pause) {
			return nil, false
		}
	}
}

func (s *Sink) read(ctx context.Context, line []byte, seq uint64) (*Item, error) {
	var err error
	if s.o.Mask != nil {
		if line, err = s.o.Mask(ctx, line); err != nil {
			return nil, fmt.Errorf("line %d: %w", seq, err)
		}
	}
	e, err := audit.Parse(line)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", seq, err)
	}
	item := &Item{Seq: seq, Line: line, Event: e}
	switch e.Event {
	case "decision":
		s.hold(e, seq)
	case "outcome":
		item.Decision = s.open[e.ID]
		delete(s.open, e.ID)
	}
	if len(s.o.Events) > 0 && !slices.Contains(s.o.Events, e.Event) {
		return nil, nil
	}
	return item, nil
}

// hold remembers a decision until its outcome comes.
func (s *Sink) hold(e *audit.Event, seq uint64) {
	s.open[e.ID] = e
	s.order = append(s.order, held{e.ID, seq})
	for len(s.order) > 0 && (s.open[s.order[0].id] == nil || len(s.open) > maxOpen) {
		delete(s.open, s.order[0].id)
		s.order = s.order[1:]
	}
}

// deliver sends a batch until it is taken, and reports false when ctx is done first.
func (s *Sink) deliver(ctx context.Context, batch []Item, last uint64) bool {
	for pause := firstPause; len(batch) > 0; pause = min(2*pause, maxPause) {
		err := s.o.Target.Send(ctx, batch)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		s.fail(err)
		if !wait(ctx, pause) {
			return false
		}
	}
	s.works()
	s.move(last, time.Now())
	s.sent.Store(last)
	if err := s.save(); err != nil {
		s.fail(fmt.Errorf("keeping the cursor: %w", err))
	}
	return true
}

// wait waits for about d and reports false when ctx is done first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// fail notes a failure and tells of it once.
func (s *Sink) fail(err error) {
	f := &failure{err.Error(), time.Now()}
	if old := s.failed.Load(); old != nil {
		f.since = old.since
		s.failed.Store(f)
		return
	}
	s.failed.Store(f)
	s.o.Notice(fmt.Sprintf("sink %s fails and will be tried again: %s", s.o.Name, f.err))
}

func (s *Sink) works() {
	if f := s.failed.Swap(nil); f != nil {
		s.o.Notice(fmt.Sprintf("sink %s works again after %s", s.o.Name, time.Since(f.since).Round(time.Millisecond)))
	}
}
