package audit

import (
	"context"
	"io"
	"iter"
	"time"
)

// followEvery is how often Follow looks for new lines.
const followEvery = 100 * time.Millisecond

// Follow yields exchanges as they end, from now on, until ctx is done. It goes on
// over rotation, and where the log was removed, replaced or cut short.
func Follow(ctx context.Context, path string, f Filter) iter.Seq2[Exchange, error] {
	return func(yield func(Exchange, error) bool) {
		last, err := LastNumber(path)
		if err != nil {
			yield(Exchange{}, err)
			return
		}
		FollowAfter(ctx, path, last, nil, f)(yield)
	}
}

// FollowAfter is Follow from the line behind a number on. It yields exchanges that
// were open there when they end.
func FollowAfter(ctx context.Context, path string, last uint64, open []Exchange, f Filter) iter.Seq2[Exchange, error] {
	return func(yield func(Exchange, error) bool) {
		p := pairs{filter: f, yield: yield, asEnded: true}
		for _, x := range open {
			p.add(x.Decision)
		}
		r := NewReader(path, last)
		defer r.Close()
		tick := time.NewTicker(followEvery)
		defer tick.Stop()
		for {
			for !p.stopped && ctx.Err() == nil {
				line, _, err := r.Next()
				if err == io.EOF {
					break
				}
				var e *Event
				if err == nil {
					e, err = Parse(line)
				}
				if err != nil {
					yield(Exchange{}, err)
					return
				}
				p.add(e)
			}
			if p.stopped {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}

// Latest returns the last n exchanges that match, oldest first, and the number of
// the line up to which it read. It reads no more of the log than it needs.
func Latest(path string, n int, f Filter) (list []Exchange, last uint64, err error) {
	end, err := LastNumber(path)
	if err != nil || n <= 0 {
		return nil, end, err
	}
	for back := uint64(100 * n); ; back *= 20 {
		after := end - min(end, back)
		if list, last, err = behind(path, after, n, f); err != nil || len(list) >= n || after == 0 {
			return list, last, err
		}
	}
}

// behind returns the last n exchanges of those behind a line.
func behind(path string, after uint64, n int, f Filter) (list []Exchange, last uint64, err error) {
	p := pairs{filter: f, yield: func(x Exchange, _ error) bool {
		if list = append(list, x); len(list) > 2*n {
			list = append(list[:0], list[len(list)-n:]...)
		}
		return true
	}}
	r := NewReader(path, after)
	defer r.Close()
	for {
		line, _, err := r.Next()
		if err == io.EOF {
			p.rest()
			return list[max(len(list)-n, 0):], r.Last(), nil
		}
		if err != nil {
			return nil, 0, err
		}
		e, err := Parse(line)
		if err != nil {
			return nil, 0, err
		}
		p.add(e)
	}
}
