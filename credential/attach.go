package credential

import "io"

// Attach has c closed when the handle that was presented is revoked, until Detach. It
// reports false, and closes nothing, where that has happened already. Without a
// handle it does nothing. c's Close must be safe to call more than once and from any
// goroutine.
func (p *Presented) Attach(c io.Closer) bool {
	h := p.handle
	if h == nil {
		return true
	}
	h.cutting.Lock()
	if h.attached == nil {
		h.attached = map[io.Closer]struct{}{}
	}
	h.attached[c] = struct{}{}
	h.cutting.Unlock()
	return !h.Revoked()
}

// Detach undoes Attach.
func (p *Presented) Detach(c io.Closer) {
	if h := p.handle; h != nil {
		h.cutting.Lock()
		delete(h.attached, c)
		h.cutting.Unlock()
	}
}

// Live returns [ErrHandleRevoked] once the handle that was presented was revoked.
func (p *Presented) Live() error {
	if p.handle != nil && p.handle.Revoked() {
		return ErrHandleRevoked
	}
	return nil
}

// cut closes what is attached to a handle.
func (h *Handle) cut() {
	h.cutting.Lock()
	attached := h.attached
	h.attached = nil
	h.cutting.Unlock()
	for c := range attached {
		c.Close()
	}
}
