package redis

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"chaperone/store"
)

// page is how many entries or changes are read at once.
const page = 1000

// Mark implements [store.Feed]. It also sets the store's clock by the server's.
func (s *Store) Mark(ctx context.Context) (store.Mark, error) {
	if err := ctx.Err(); err != nil {
		return store.Mark{}, err
	}
	asked, began := s.o.Local(), time.Now()
	answer, err := headScript.Run(ctx, s.db, []string{s.key("head")}).StringSlice()
	if err != nil {
		return store.Mark{}, told(err)
	}
	if len(answer) != 4 {
		return store.Mark{}, errDamaged
	}
	seq, err := strconv.ParseUint(answer[0], 10, 64)
	sec, err2 := strconv.ParseInt(answer[2], 10, 64)
	usec, err3 := strconv.ParseInt(answer[3], 10, 64)
	if errors.Join(err, err2, err3) != nil {
		return store.Mark{}, errDamaged
	}
	s.setClock(time.Unix(sec, usec*1000).Sub(asked), time.Since(began))
	return store.Mark{Seq: seq, Tag: answer[1]}, nil
}

// setClock sets the clock by what the server said, so long after it was asked as ahead
// says, and how long the answer took. When within that time it was is not known: an offset
// that may be right stays, so that clocks that agree are not moved back and forth.
func (s *Store) setClock(ahead, took time.Duration) {
	offset := ahead - took/2
	if old := time.Duration(s.offset.Load()); (offset - old).Abs() > took/2 {
		s.offset.Store(int64(offset))
	}
}

// Each implements [store.Feed].
func (s *Store) Each(ctx context.Context, prefix string) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		if err := s.each(ctx, prefix, func(e store.Entry) bool { return yield(e, nil) }); err != nil {
			yield(store.Entry{}, err)
		}
	}
}

// each reads the hashes of all classes that prefix reaches. Where a cursor leads is
// known to the server that gave it alone: when that has changed meanwhile, what was
// read may have holes.
func (s *Store) each(ctx context.Context, prefix string, yield func(store.Entry) bool) error {
	before, err := s.info(ctx, "server")
	if err != nil {
		return err
	}
	classes := []string{class(prefix)}
	if !strings.Contains(prefix, "/") {
		if classes, err = s.db.SMembers(ctx, s.key("classes")).Result(); err != nil {
			return told(err)
		}
	}
	for _, c := range classes {
		if !strings.HasPrefix(c, prefix) && !strings.Contains(prefix, "/") {
			continue
		}
		if on, err := s.eachOf(ctx, c, prefix, yield); err != nil || !on {
			return err
		}
	}
	after, err := s.info(ctx, "server")
	if err == nil && before["run_id"] != after["run_id"] {
		err = fmt.Errorf("%w: another server took over while it was read", store.ErrUnavailable)
	}
	return err
}

// eachOf reads one hash, and reports whether to go on. While one page is looked at the
// next is opened, and the one after that fetched.
func (s *Store) eachOf(ctx context.Context, class, prefix string, yield func(store.Entry) bool) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	pages, opened := make(chan scanned, 1), make(chan scanned, 1)
	var ahead sync.WaitGroup
	ahead.Go(func() { s.fetch(ctx, class, pages) })
	ahead.Go(func() { s.open(ctx, pages, opened) })
	defer ahead.Wait()
	defer cancel()
	for p := range opened {
		if p.err != nil {
			return false, p.err
		}
		for i := range p.entries {
			e := &p.entries[i]
			if strings.HasPrefix(e.Name, prefix) && !s.expired(e) && !yield(*e) {
				return false, nil
			}
		}
	}
	return true, ctx.Err()
}

// scanned is one page of a hash: fields and values in turn, and what they say.
type scanned struct {
	pairs   []string
	entries []store.Entry
	err     error
}

// fetch reads the pages of a hash, until the last, an error, or the end of ctx.
func (s *Store) fetch(ctx context.Context, class string, pages chan<- scanned) {
	defer close(pages)
	for cursor := uint64(0); ; {
		pairs, next, err := s.db.HScan(ctx, s.key("e:"+class), cursor, "", page).Result()
		select {
		case pages <- scanned{pairs: pairs, err: told(err)}:
		case <-ctx.Done():
			return
		}
		if cursor = next; err != nil || cursor == 0 {
			return
		}
	}
}

// open opens what is sealed in pages, until their end, an error, or the end of ctx.
func (s *Store) open(ctx context.Context, pages <-chan scanned, opened chan<- scanned) {
	defer close(opened)
	for p := range pages {
		if p.err == nil {
			p.entries, p.err = s.openPage(p.pairs)
		}
		p.pairs = nil
		select {
		case opened <- p:
		case <-ctx.Done():
			return
		}
	}
}

// openPage opens fields and values in turn. The names of the entries are parts of one
// text, and their values of one slice, as there may be a million.
func (s *Store) openPage(pairs []string) ([]store.Entry, error) {
	n := 0
	for i := 1; i < len(pairs); i += 2 {
		n += len(pairs[i])
	}
	sealed, names := make([]byte, 0, n), make([]byte, 0, 16*len(pairs))
	out, ends := make([]store.Entry, 0, len(pairs)/2), make([]int, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		at := len(sealed)
		sealed = append(sealed, pairs[i+1]...)
		e, name, err := s.unseal(pairs[i], sealed[at:len(sealed):len(sealed)])
		if err != nil {
			return nil, err
		}
		names = append(names, name...)
		out, ends = append(out, e), append(ends, len(names))
	}
	text, at := string(names), 0
	for i, end := range ends {
		out[i].Name, at = text[at:end], end
	}
	return out, nil
}

// Changes implements [store.Feed]. Where history ends is asked when nothing came, and
// so at the pace of the waits and not of the changes.
func (s *Store) Changes(ctx context.Context, after store.Mark, wait time.Duration) ([]store.Change, error) {
	changes, err := s.read(ctx, after, wait)
	if err != nil || len(changes) > 0 {
		return changes, err
	}
	head, err := s.Mark(ctx)
	if err != nil || head == after {
		return nil, err
	}
	if head.Seq > after.Seq { // it came a moment ago, or is forgotten
		if changes, err = s.read(ctx, after, 0); err != nil || len(changes) > 0 {
			return changes, err
		}
	}
	return nil, fmt.Errorf("%w: it ends at %d, and what follows %d cannot be told", store.ErrGap, head.Seq, after.Seq)
}

// read returns what the stream has after a mark, waiting for it if wait is positive.
func (s *Store) read(ctx context.Context, after store.Mark, wait time.Duration) ([]store.Change, error) {
	args := &redis.XReadArgs{Streams: []string{s.key("changes"), strconv.FormatUint(after.Seq, 10) + "-0"}, Count: page, Block: -1}
	if wait > 0 {
		args.Block = max(wait, time.Millisecond) // less is for ever to Redis
	}
	ctx, cancel := context.WithTimeout(ctx, max(wait, 0)+commandTimeout)
	defer cancel()
	streams, err := s.db.XRead(ctx, args).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, told(err)
	}
	var out []store.Change
	for _, m := range streams[0].Messages {
		c, err := s.change(m)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == page {
		out[page-1].More = true
	}
	return out, nil
}

// change reads one entry of the stream.
func (s *Store) change(m redis.XMessage) (store.Change, error) {
	text := func(name string) string {
		v, _ := m.Values[name].(string)
		return v
	}
	seq, err := strconv.ParseUint(strings.TrimSuffix(m.ID, "-0"), 10, 64)
	if err != nil {
		return store.Change{}, errDamaged
	}
	c := store.Change{Mark: store.Mark{Seq: seq, Tag: text("t")}, After: text("p")}
	if raw := text("v"); raw != "" {
		c.Entry, err = s.decode(text("f"), []byte(raw))
		return c, err
	}
	c.Gone = true
	c.Entry.Version = seq
	name, _, err := s.seal.open([]byte(text("n")), text("f"))
	c.Entry.Name = string(name)
	return c, err
}
