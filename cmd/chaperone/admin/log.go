package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"chaperone/cmd/chaperone/problem"
)

// maxQuestion bounds a question for another replica's log, in bytes.
const maxQuestion = 64 << 10

// askLog passes a question on to the door of another replica, and its answer back as it
// comes. Whoever may open the socket may read the log here, and so there.
func (s *Server) askLog(w http.ResponseWriter, r *http.Request) {
	question, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuestion))
	var body io.ReadCloser
	to := http.NewResponseController(w)
	if err == nil {
		err = to.SetReadDeadline(time.Time{}) // the answer may have no end
	}
	if err == nil {
		body, err = s.o.AskLog(r.Context(), r.PathValue("id"), question)
	}
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(statusOf(err))
		json.NewEncoder(w).Encode(problem.Of(err)) // a client that went away cannot be told
		return
	}
	defer body.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := body.Read(b)
		if _, werr := w.Write(b[:n]); werr != nil || err != nil || to.Flush() != nil {
			return
		}
	}
}

// AskLog sends a question, as JSON, to the log of another replica and returns the answer
// as it comes. The caller closes it.
func (c *Client) AskLog(ctx context.Context, replica string, question []byte) (io.ReadCloser, error) {
	r, err := c.request(ctx, http.MethodPost, "/v1/replicas/"+url.PathEscape(replica)+"/log", question)
	if err != nil {
		return nil, err
	}
	endless := http.Client{Transport: c.http.Transport}
	resp, err := endless.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	p := new(problem.Problem)
	if err := json.NewDecoder(resp.Body).Decode(p); err != nil || p.Message == "" {
		return nil, fmt.Errorf("asking the proxy: it answered %s", resp.Status)
	}
	return nil, p
}
