// Package peers lets replicas read each other's decision log: a question about a log,
// its answer, and the door at which a replica answers the others.
package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"chaperone/audit"
	"chaperone/audit/index"
	"chaperone/audit/proof"
)

// What can be asked of a log.
const (
	List   = "list"   // all exchanges that match, oldest first
	Count  = "count"  // how many by Group
	Latest = "latest" // the last Lines of them
	Follow = "follow" // those of Latest that have ended, Caught, and then what ends, without end
	Prove  = "prove"  // a proof of the lines of the request that is wanted by its id
)

// Question is a question about one log.
type Question struct {
	Ask   string            `json:"ask"`
	Want  map[string]string `json:"want,omitzero"` // field -> pattern, see [audit.Filter]
	Since time.Time         `json:"since,omitzero"`
	Until time.Time         `json:"until,omitzero"`
	Group []string          `json:"group,omitzero"`
	Lines int               `json:"lines,omitzero"`
	// NoIndex reads the lines themselves.
	NoIndex bool `json:"no_index,omitzero"`
}

// MaxLines bounds Question.Lines.
const MaxLines = 100_000

// ErrQuestion is wrapped when a question is none that this version answers.
var ErrQuestion = errors.New("the question is not understood")

// Wanted makes the part of a question that selects.
func Wanted(f *audit.Filter) Question {
	q := Question{Want: map[string]string{}, Since: f.Since, Until: f.Until}
	for _, w := range f.Wants() {
		q.Want[w.Field] = w.Pattern
	}
	return q
}

// filter is what the question selects; a field that is not known is an error, since to
// pass it over would answer another question.
func (q *Question) filter() (audit.Filter, error) {
	f := audit.Filter{Since: q.Since, Until: q.Until}
	for field, pattern := range q.Want {
		text := f.Text(field)
		if text == nil {
			return f, fmt.Errorf("%w: there is no field %q", ErrQuestion, field)
		}
		*text = pattern
	}
	if q.Lines < 0 || q.Lines > MaxLines {
		return f, fmt.Errorf("%w: %d lines", ErrQuestion, q.Lines)
	}
	return f, nil
}

// Piece is a part of an answer: one of its fields is set.
type Piece struct {
	Exchange audit.Exchange
	Group    *index.Group
	Proof    string // of one line
	Note     string // what whoever asked should be told
	Caught   bool   // of a question that follows: from here on it is what comes
}

// Log is a log that can be asked.
type Log struct {
	Path   string
	Public *proof.Public // checks its index and its checkpoints; nil: there is none
	// Flush brings into the file what was decided; it may be nil.
	Flush func() error
	// Sign signs a checkpoint where one is wanted that is not there yet; it may be nil.
	Sign func() error
	// Workers is on how many processors it is searched; 0: on all.
	Workers int
}

// Ask answers a question. An error ends the answer.
func (l Log) Ask(ctx context.Context, q Question) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		a := answer{yield: yield}
		if err := l.answer(ctx, &q, &a); err != nil && !a.stopped {
			yield(Piece{}, err)
		}
	}
}

// answer hands out pieces until nobody wants more.
type answer struct {
	yield   func(Piece, error) bool
	stopped bool
}

func (a *answer) give(p Piece) bool {
	a.stopped = a.stopped || !a.yield(p, nil)
	return !a.stopped
}

func (l Log) answer(ctx context.Context, q *Question, a *answer) error {
	f, err := q.filter()
	if err != nil {
		return err
	}
	if l.Flush != nil {
		if err := l.Flush(); err != nil {
			a.give(Piece{Note: "the last decisions may be missing: " + err.Error()})
		}
	}
	switch q.Ask {
	case List:
		return each(index.List(ctx, l.query(q, f, a)), a)
	case Count:
		groups, err := index.Count(ctx, l.query(q, f, a))
		for i := range groups {
			if !a.give(Piece{Group: &groups[i]}) {
				return nil
			}
		}
		return err
	case Latest, Follow:
		return l.tail(ctx, q, f, a)
	case Prove:
		return l.prove(ctx, q, f, a)
	}
	return fmt.Errorf("%w: it asks for %q", ErrQuestion, q.Ask)
}

func (l Log) query(q *Question, f audit.Filter, a *answer) index.Query {
	x := index.Query{Path: l.Path, Filter: f, Group: q.Group, NoIndex: q.NoIndex, Workers: l.Workers, Notice: func(m string) { a.give(Piece{Note: m}) }}
	if l.Public != nil {
		x.Key = l.Public
	}
	return x
}

func each(list iter.Seq2[audit.Exchange, error], a *answer) error {
	for x, err := range list {
		if err != nil {
			return err
		}
		if !a.give(Piece{Exchange: x}) {
			return nil
		}
	}
	return nil
}

// tail gives the last exchanges, and where that is asked for those that come.
func (l Log) tail(ctx context.Context, q *Question, f audit.Filter, a *answer) error {
	list, last, err := audit.Latest(l.Path, q.Lines, f)
	if err != nil {
		return err
	}
	var open []audit.Exchange
	for _, x := range list {
		if q.Ask == Follow && x.Outcome == nil && !x.Decision.IsAlarm() {
			open = append(open, x)
			continue
		}
		if !a.give(Piece{Exchange: x}) {
			return nil
		}
	}
	if q.Ask != Follow || !a.give(Piece{Caught: true}) {
		return nil
	}
	return each(audit.FollowAfter(ctx, l.Path, last, open, f), a)
}

// prove proves the lines of one request.
func (l Log) prove(ctx context.Context, q *Question, f audit.Filter, a *answer) error {
	if l.Public == nil {
		return fmt.Errorf("proving: %w: the log has no public key", proof.ErrKey)
	}
	for x, err := range index.List(ctx, l.query(q, f, a)) {
		if err != nil {
			return err
		}
		for _, e := range []*audit.Event{x.Decision, x.Outcome} {
			if e == nil {
				continue
			}
			text, err := proof.Prove(l.Path, l.Public, e.Seq, e.Raw)
			if errors.Is(err, proof.ErrUnsigned) && l.Sign != nil && l.Sign() == nil {
				text, err = proof.Prove(l.Path, l.Public, e.Seq, e.Raw)
			}
			if err != nil {
				return err
			}
			if !a.give(Piece{Proof: string(text)}) {
				return nil
			}
		}
	}
	return nil
}

// wire is a piece as it travels. Beside it go the name of who answers, a beat where
// nothing is to be told, the end, and an error in its place.
type wire struct {
	Replica  string          `json:"replica,omitzero"`
	Decision json.RawMessage `json:"decision,omitzero"` // the log's own line
	Outcome  json.RawMessage `json:"outcome,omitzero"`
	Alarm    string          `json:"alarm,omitzero"` // raised after the decision was written
	Group    *index.Group    `json:"group,omitzero"`
	Proof    string          `json:"proof,omitzero"`
	Note     string          `json:"note,omitzero"`
	Caught   bool            `json:"caught,omitzero"`
	End      bool            `json:"end,omitzero"`
	Error    string          `json:"error,omitzero"`
}

func pack(p *Piece) wire {
	w := wire{Group: p.Group, Proof: p.Proof, Note: p.Note, Caught: p.Caught}
	if d := p.Exchange.Decision; d != nil {
		w.Decision, w.Alarm = d.Raw, d.Alarm
	}
	if o := p.Exchange.Outcome; o != nil {
		w.Outcome = o.Raw
	}
	return w
}

func (w *wire) unpack() (Piece, error) {
	p := Piece{Group: w.Group, Proof: w.Proof, Note: w.Note, Caught: w.Caught}
	if w.Decision == nil {
		return p, nil
	}
	var err error
	if p.Exchange.Decision, err = audit.Parse(w.Decision); err != nil {
		return p, err
	}
	p.Exchange.Decision.Alarm = w.Alarm
	if w.Outcome != nil {
		p.Exchange.Outcome, err = audit.Parse(w.Outcome)
	}
	return p, err
}
