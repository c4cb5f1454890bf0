// Package keep looks after the decision log beside the proxy that writes it: it signs
// checkpoints of it, and indexes and packs segments that have ended.
package keep

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"chaperone/audit"
	"chaperone/audit/index"
	"chaperone/audit/proof"
)

// Log is a log that this process writes, as [audit.Log].
type Log interface {
	proof.Log
	Look() (altered []string, err error)
}

// Options of a [Keeper].
type Options struct {
	Path string     // of the log
	Log  Log        // that writes it, where that is this process; else nil
	Key  *proof.Key // signs checkpoints and index
	// CheckpointEvery and CheckpointLines say when a checkpoint is due: when so long has
	// passed, or so many lines were written. Elsewhere are folders into which each goes
	// besides.
	CheckpointEvery time.Duration
	CheckpointLines int64
	Elsewhere       []string
	// Pack says whether segments that have ended are compressed.
	Pack bool
	// Every is how often the keeper looks; 2 s when zero.
	Every time.Duration
	// Behind runs what takes a processor for a while, after what requests need; nil runs
	// it as it is.
	Behind func(func())
	// Notice is told in words of what an operator should know.
	Notice func(message string)
	// Altered is told in words when somebody changed the log.
	Altered func(message string)
}

// Keeper looks after a log until it is closed.
type Keeper struct {
	o      Options
	ctx    context.Context
	cancel context.CancelFunc
	sign   chan chan error
	done   sync.WaitGroup
	index  *index.Maker
	notary *proof.Notary // nil: not opened yet
	told   string        // the last fault that was told
	failed bool          // index or packing, when last tried
}

// Between two looks the keeper adds what has come to the tree, a little at a time, so
// that a look has little to do: what takes a processor for some milliseconds is felt by
// requests. Where nothing comes it does so less often.
const (
	slices = 40  // of the time between two looks
	quiet  = 8   // of those, where nothing comes
	little = 256 // lines to be read: a third of a millisecond
)

// Start begins to look after a log.
func Start(o Options) *Keeper {
	if o.Every == 0 {
		o.Every = 2 * time.Second
	}
	if o.Behind == nil {
		o.Behind = func(f func()) { f() }
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{o: o, ctx: ctx, cancel: cancel, sign: make(chan chan error), index: index.NewMaker(o.Path, o.Key)}
	k.done.Go(func() { k.run(ctx) })
	return k
}

// ErrClosed is returned by a keeper that was closed.
var ErrClosed = errors.New("nobody looks after the log any more")

// Sign signs a checkpoint of all lines that are on disk now, and returns when it is
// written.
func (k *Keeper) Sign() error {
	done := make(chan error, 1)
	select {
	case k.sign <- done:
		return <-done
	case <-k.ctx.Done():
		return ErrClosed
	}
}

// Close waits until what is being done is done.
func (k *Keeper) Close() {
	k.cancel()
	k.done.Wait()
}

func (k *Keeper) run(ctx context.Context) {
	due := time.NewTimer(0)
	defer due.Stop()
	slice := 0
	for {
		if slice == 0 {
			k.tell(k.look(ctx))
			for k.told == "" && k.notary != nil && k.notary.More() && ctx.Err() == nil { // it is far behind
				k.tell(k.look(ctx))
			}
		}
		step := quiet
		if k.notary != nil {
			before := k.notary.Size()
			_ = k.notary.Add(little) // the next look fails by the same, and tells
			if k.notary.Size() != before {
				step = 1
			}
		}
		slice = (slice/step + 1) * step % slices
		due.Reset(time.Duration(step) * k.o.Every / slices)
		select {
		case <-ctx.Done():
			k.end()
			return
		case done := <-k.sign:
			var err error
			k.o.Behind(func() {
				for err = k.notarize(true); err == nil && k.notary.More(); {
					err = k.notarize(true)
				}
			})
			done <- err
		case <-due.C:
		}
	}
}

// tell tells of a fault once, until it is another or gone.
func (k *Keeper) tell(err error) {
	text := ""
	if err != nil { // a segment that was pruned meanwhile
		text = err.Error()
	}
	if text != "" && text != k.told {
		k.o.Notice("looking after the decision log: " + text)
	}
	k.told = text
}

// notarize adds what has come to the tree, and signs when that is due, or at once.
func (k *Keeper) notarize(now bool) error {
	if k.notary == nil {
		n, err := proof.NewNotary(proof.NotaryOptions{Path: k.o.Path, Log: k.o.Log, Key: k.o.Key, Every: k.o.CheckpointEvery, Lines: k.o.CheckpointLines,
			Elsewhere: k.o.Elsewhere, Altered: k.o.Altered})
		if errors.Is(err, proof.ErrRolledBack) && k.told == "" {
			k.o.Altered(err.Error())
		}
		if err != nil {
			return err
		}
		k.notary = n
	}
	_, err := k.notary.Look(now)
	return err
}

// end signs what is left.
func (k *Keeper) end() {
	k.tell(errors.Join(k.untouched(), k.notarize(true)))
	if k.notary != nil {
		k.notary.Close()
	}
}

// look does what is due, and behind what requests need where that is more than a little.
func (k *Keeper) look(ctx context.Context) error {
	var err, ierr error
	if err = k.untouched(); err != nil {
		return err
	}
	if k.notary != nil {
		err = k.notary.Add(little)
	}
	if k.notary == nil || err == nil && k.notary.More() {
		k.o.Behind(func() { err = k.notarize(false) })
	} else if err == nil {
		err = k.notarize(false)
	}
	if k.failed || k.index.Due() {
		k.o.Behind(func() { ierr = k.arrange(ctx) })
		k.failed = ierr != nil
	}
	return errors.Join(err, ierr)
}

// untouched tells what somebody did to the log's file.
func (k *Keeper) untouched() error {
	if k.o.Log == nil {
		return nil // who reads the file sees it
	}
	altered, err := k.o.Log.Look()
	for _, message := range altered {
		k.o.Altered(message)
	}
	return err
}

// arrange indexes and packs segments.
func (k *Keeper) arrange(ctx context.Context) error {
	_, err := k.index.Update()
	if !k.o.Pack || ctx.Err() != nil {
		return err
	}
	segments, lerr := audit.Segments(k.o.Path)
	if lerr != nil {
		return errors.Join(err, fmt.Errorf("listing segments: %w", lerr))
	}
	for _, name := range segments {
		if name == k.o.Path || audit.IsPacked(name) {
			continue
		}
		if ctx.Err() != nil {
			return err
		}
		if _, perr := audit.Pack(name); perr != nil {
			return errors.Join(err, perr)
		}
	}
	return err
}
