package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"time"
)

// Dial sends a question, as JSON, to the door at an address and returns the answer as it
// travels, for [Read]. The caller closes it.
func (i Identity) Dial(ctx context.Context, address string, question []byte) (io.ReadCloser, error) {
	transport := &http.Transport{
		DialContext:     (&net.Dialer{Timeout: beat}).DialContext,
		TLSClientConfig: i.config.Clone(), TLSHandshakeTimeout: beat, ResponseHeaderTimeout: beat, DisableKeepAlives: true,
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+path, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("asking the replica at %s: %w", address, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("asking the replica at %s: it answered %s", address, resp.Status)
	}
	return resp.Body, nil
}

var (
	errSilent = errors.New("it fell silent")
	errBroke  = errors.New("its answer broke off")
)

// Read reads an answer of the replica with this id, and closes it at its end. An answer
// that breaks off, falls silent or is another replica's ends with an error.
func Read(replica string, body io.ReadCloser) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) {
		defer body.Close()
		d := json.NewDecoder(body)
		named := false
		for {
			var w wire
			watch := time.AfterFunc(silence, func() { body.Close() })
			err := d.Decode(&w)
			switch silent := !watch.Stop(); {
			case err != nil && silent:
				err = errSilent
			case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
				err = errBroke
			case err != nil:
			case w.Error != "":
				err = errors.New(w.Error)
			case !named && w.Replica != replica:
				err = fmt.Errorf("%q answers in its place", w.Replica)
			case w.End:
				return
			}
			p := Piece{}
			if err == nil {
				named = true
				p, err = w.unpack()
			}
			if err == nil && p == (Piece{}) {
				continue
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}
