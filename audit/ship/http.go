package ship

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// HTTPOptions say where to post, and how to get in.
type HTTPOptions struct {
	URL     string
	Headers map[string]string // with their secrets; never printed
	TLS     *tls.Config
	Timeout time.Duration // of one sending; 10 s when zero
}

// ErrRefused is wrapped when a target did not take what it was sent.
var ErrRefused = errors.New("it was not taken")

// poster posts bodies.
type poster struct {
	o      HTTPOptions
	client *http.Client
}

func newPoster(o HTTPOptions) *poster {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	t := &http.Transport{TLSClientConfig: o.TLS, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &poster{o, &http.Client{Transport: t, Timeout: o.Timeout, CheckRedirect: refuse}}
}

// post sends one body and returns the answer's. Only 2xx is a yes.
func (p *poster) post(ctx context.Context, path, kind string, body []byte, zip bool) ([]byte, error) {
	if zip {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(body) // into memory
		w.Close()
		body = b.Bytes()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.o.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("posting: %w", err)
	}
	r.Header.Set("Content-Type", kind)
	r.Header.Set("User-Agent", "chaperone")
	if zip {
		r.Header.Set("Content-Encoding", "gzip")
	}
	for k, v := range p.o.Headers {
		r.Header.Set(k, v)
	}
	resp, err := p.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("posting: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, fmt.Errorf("%w: %s answers %d", ErrRefused, r.URL.Host, resp.StatusCode)
	}
	return answer, err
}

// Close closes connections.
func (p *poster) Close() error {
	p.client.CloseIdleConnections()
	return nil
}

// webhook posts the lines of a batch as a JSON array.
type webhook struct{ *poster }

// NewWebhook posts lines as they are in the log, as a JSON array.
func NewWebhook(o HTTPOptions) Target { return webhook{newPoster(o)} }

// Send implements [Target].
func (w webhook) Send(ctx context.Context, batch []Item) error {
	_, err := w.post(ctx, "", "application/json", array(batch, func(i *Item) any { return json.RawMessage(i.Line) }), false)
	return err
}

// array makes a JSON array of what f makes of the items; nil leaves one out.
func array(batch []Item, f func(*Item) any) []byte {
	b := []byte{'['}
	for i := range batch {
		v := f(&batch[i])
		if v == nil {
			continue
		}
		one, err := json.Marshal(v)
		if err != nil {
			continue // of types that marshal
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, one...)
	}
	return append(b, ']')
}
