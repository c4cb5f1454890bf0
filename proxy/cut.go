package proxy

import (
	"context"
	"fmt"
	"io"

	"chaperone/credential"
)

// guard has the exchange cut when what allowed it is taken back: the session, where
// no tunnel is cut with it, or the handle. On HTTP/1.1 that is the connection, which
// has no other exchange; on HTTP/2 the stream alone.
func (x *exchange) guard() error {
	x.cutter = x.newCutter()
	if x.door.tunnel == nil {
		x.detach = x.caller.Attach(x.cutter)
	}
	if !x.presented.Attach(x.cutter) {
		return credential.ErrHandleRevoked
	}
	return nil
}

func (x *exchange) newCutter() io.Closer {
	if x.r.ProtoMajor < 2 && x.door.tunnel != nil {
		return x.door.tunnel
	}
	if c, ok := x.w.(io.Closer); ok && x.r.ProtoMajor < 2 {
		return c
	}
	ctx, cancel := context.WithCancel(x.r.Context())
	x.r = x.r.WithContext(ctx)
	return &streamCut{cancel}
}

// soften has an exchange that was guarded cut by c from here on.
func (x *exchange) soften(c io.Closer) {
	x.unguard()
	x.detach, x.cutter = nil, c
	if t := x.door.tunnel; t != nil {
		t.soften(c)
	} else {
		x.detach = x.caller.Attach(c)
	}
	if !x.presented.Attach(c) {
		c.Close()
	}
}

// harden has the tunnel closed again, where soften had something else closed.
func (x *exchange) harden() {
	if t := x.door.tunnel; t != nil {
		t.soften(nil)
	}
}

// streamCut ends one exchange by its context.
type streamCut struct{ cancel context.CancelFunc }

// Close implements [io.Closer].
func (s *streamCut) Close() error {
	s.cancel()
	return nil
}

// unguard undoes guard.
func (x *exchange) unguard() {
	if x.cutter == nil {
		return
	}
	x.presented.Detach(x.cutter)
	if x.detach != nil {
		x.detach()
	}
	if s, ok := x.cutter.(*streamCut); ok {
		s.cancel()
	}
}

// barred is why the exchange may not go on, or nil.
func (x *exchange) barred() error {
	if err := x.caller.Live(); err != nil {
		return err
	}
	if err := x.sent.refused(); err != nil {
		return err
	}
	if err := x.presented.Live(); err != nil {
		return err
	}
	if x.s.stopped.Load() {
		return errStopped
	}
	return nil
}

// because says with an error of an exchange that it was cut, where that is why.
func (x *exchange) because(err error) error {
	if why := x.barred(); err != nil && why != nil {
		return fmt.Errorf("%w: %w", why, err)
	}
	return err
}
